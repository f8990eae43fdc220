"""A layer as the kernels of a move take it: where its index, values and optimizer slots are, and memory to work in."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sparse_models.kernels.cpu._emit import CACHE_LINE, Emitter
from sparse_models.kernels.cpu.moves._keys import HISTOGRAM_BYTES
from sparse_models.kernels.cpu.moves.product import BLOCK, padded

CHUNK = 2**17  # scores that are looked at together, in whole rows: half a second cache of them
WORTH_A_TEAM = 2**14  # scores of a layer
BEHIND = 16  # numbers' room behind others, for what a vector reads
# Integers: the key that is to be passed, how many candidates there are, whether a score was NaN, whether there were more than
# there is room for, and whether a weight was NaN.
STATE = 5
MOST_SLOTS = 3


class Form(NamedTuple):
    """What the last kernel of a move is compiled for: the bytes of a column's and of a row's number, and how many slots."""

    column_bytes: int
    row_bytes: int
    slots: int


class Storage(NamedTuple):
    """What a move rewrites of a layer: the index both ways, where pieces start if that is held, values and optimizer slots."""

    row_pointers: Tensor
    columns: Tensor
    column_pointers: Tensor
    rows: Tensor
    transposition: Tensor
    row_starts: Tensor | None
    column_starts: Tensor | None
    values: Tensor
    slots: tuple[Tensor, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the weight [out, in]."""
        return self.row_pointers.numel() - 1, self.column_pointers.numel() - 1

    @property
    def form(self) -> Form:
        """What the kernel is compiled for."""
        return Form(self.columns.element_size(), self.rows.element_size(), len(self.slots))

    @property
    def written(self) -> list[Tensor]:
        """All tensors that a move writes to."""
        return [tensor for tensor in (*self[:-1], *self.slots) if isinstance(tensor, Tensor)]

    def fits(self) -> bool:
        """Tell whether the kernels, which see addresses alone, read and write it as it is meant."""
        values, indices = self.values, [one for one in self[:-2] if isinstance(one, Tensor)]
        like = all(
            type(slot) is Tensor and slot.shape == values.shape and slot.dtype == values.dtype and not slot.is_neg()
            for slot in self.slots
        )
        small = all(one.dtype in (torch.int16, torch.int32) for one in indices)
        plain = all(one.is_contiguous() and one.is_cpu and not one.is_inference() for one in self.written)
        known = values.dtype in (torch.float32, torch.float64) and values.dim() == 1 and not values.is_neg()
        rows, columns = self.shape
        sized = rows * columns < 2**31 and values.numel() == self.columns.numel() == self.rows.numel()
        return like and small and plain and known and sized and len(self.slots) <= MOST_SLOTS


COLUMNS = (
    "rows", "columns", "nnz", "survivors", "grown", "form", "values", "row_pointers", "indices", "column_pointers",
    "row_indices", "transposition", "row_starts", "column_starts", "alive", "histogram", "state", "keys", "places",
    "old_indices", "sources", "bits", "following", "old_values", *(f"slot_{place}" for place in range(MOST_SLOTS)),
    *(f"old_slot_{place}" for place in range(MOST_SLOTS)),
)  # fmt: skip
PART = (
    "first",
    "count",
    "scores",
    "state",
    "keys",
    "places",
    "row",
    "capacity",
    "histogram",
)  # of a layer's rows, whose candidates one thread notes
PARTS = 2  # of a layer, at most


class Work:
    """A layer with memory to work in: about what it stores itself, and candidates for what is grown."""

    def __init__(self, storage: Storage, row: Tensor, form: int, scored: torch.dtype, team: int) -> None:
        """Take memory and a row of the table; `form` is the number of the layer's form, and scores are of a type."""
        self.storage, self.scored, self.grown = storage, scored, 0
        rows, columns = storage.shape
        self.parts = min(PARTS, team, rows) if rows * columns >= WORTH_A_TEAM else 1
        self.bounds = [rows * part // self.parts for part in range(self.parts + 1)]
        self.at_once = max(1, min(-(-rows // self.parts), CHUNK // columns // self.parts))
        self.size = rows * columns
        nnz, width, slots = storage.values.numel(), storage.values.element_size(), len(storage.slots)
        self.least = 0  # key of what was grown last, where it is known
        self.most = 0  # weights to be grown for which there is memory
        self.row, self.known = row, row.numpy()
        self.part_rows = torch.zeros(self.parts, len(PART), dtype=torch.int64)
        self.by_part = self.part_rows.numpy()
        self.states = torch.zeros(self.parts, STATE, dtype=torch.int64)
        self.state = self.states.numpy()
        self.fill({"rows": rows, "columns": columns, "nnz": nnz, "form": form, "state": self.states.data_ptr()})
        names = ("row_pointers", "indices", "column_pointers", "row_indices", "transposition", "row_starts", "column_starts")
        for name, tensor in zip((*names, "values"), storage[:-1], strict=True):
            self.fill({name: 0 if tensor is None else tensor.data_ptr()})
        self.fill({f"slot_{place}": slot.data_ptr() for place, slot in enumerate(storage.slots)})
        sizes = {
            "alive": nnz, "histogram": HISTOGRAM_BYTES, "old_indices": nnz * storage.columns.element_size(),
            "sources": columns * 4, "bits": -(-columns // 64) * 8, "following": columns * 4, "old_values": (nnz + 1) * width,
            **{f"old_slot_{place}": (nnz + 1) * width for place in range(slots)},
            **{f"row of {part}": BLOCK * padded(columns, scored.itemsize) * scored.itemsize for part in range(self.parts)},
            **{f"histogram of {part}": HISTOGRAM_BYTES for part in range(self.parts)},
        }  # fmt: skip
        self.memory, places = _memory(sizes)
        self.fill({name: place for name, place in places.items() if name in COLUMNS})
        for name in ("row", "histogram"):
            self.by_part[:, PART.index(name)] = [places[f"{name} of {part}"] for part in range(self.parts)]
        self.by_part[:, PART.index("state")] = [state.data_ptr() for state in self.states]

    def fill(self, entries: dict[str, int]) -> None:
        """Write entries of the layer's row of the table."""
        for name, entry in entries.items():
            self.known[COLUMNS.index(name)] = entry

    def grow(self, grown: int) -> None:
        """Have room for the candidates of so many weights to be grown, as many as are dropped."""
        self.grown = grown
        if grown > self.most:
            chunk, self.most = self.at_once * self.storage.shape[1], grown
            of_part = 2 * grown + chunk + BEHIND
            first = of_part + 2 * grown * (self.parts - 1)  # which takes the others' in the end
            sizes = {
                (name, part): (of_part if part else first) * size
                for name, size in (("keys", self.scored.itemsize), ("places", 4))
                for part in range(self.parts)
            }
            self.candidates, places = _memory(sizes)
            self.by_part[:, PART.index("capacity")] = of_part
            for name in ("keys", "places"):
                self.by_part[:, PART.index(name)] = [places[name, part] for part in range(self.parts)]
                self.fill({name: places[name, 0]})
            self.whole_parts = self.part_rows.clone()
            for part, (start, end) in enumerate(pairwise(self.bounds)):
                self.whole_parts[part, :2] = torch.tensor([start, end - start])
        self.fill({"survivors": self.storage.values.numel() - grown, "grown": grown})


def _memory(sizes: dict[Any, int]) -> tuple[Tensor, dict[Any, int]]:
    """Return memory for arrays of so many bytes, and the address of each, at which a cache line begins."""
    padded = {name: (-(-size // CACHE_LINE) + 1) * CACHE_LINE for name, size in sizes.items()}
    memory = torch.empty(sum(padded.values()) + CACHE_LINE, dtype=torch.uint8)
    at, places = -(-memory.data_ptr() // CACHE_LINE) * CACHE_LINE, dict[Any, int]()
    for name, size in padded.items():
        places[name] = at
        at += size
    return memory, places


class Entries:
    """A row of a table in the making: its entries as attributes."""

    def __init__(self, emit: Emitter, names: Sequence[str], rows: Any, number: Any) -> None:
        """Emit the loads of the entries of a row."""
        at = emit.add(rows, emit.times(number, 8 * len(names)))
        self.of = {name: emit.index(emit.add(at, 8 * place), emit.constant(0), 8) for place, name in enumerate(names)}

    def __getattr__(self, name: str) -> Any:
        return self.of[name]
