"""A layer as the kernels of a move take it: where its index, values and optimizer slots are, and memory to work in."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sparse_models.kernels.cpu._emit import CACHE_LINE, Emitter
from sparse_models.kernels.cpu.moves._keys import HISTOGRAM_BYTES
from sparse_models.kernels.cpu.moves.product import BLOCK, padded
from sparse_models.kernels.structure import PIECE

CHUNK = 2**17  # scores that are looked at together, in whole rows: half a second cache of them
WORTH_A_TEAM = 2**14  # scores of a layer
BEHIND = 16  # numbers' room behind others, for what a vector reads
# Integers of a layer: the key of what was grown last, how many are found of what is grown (fewer where a guess was wrong), and
# whether a score, or a weight, was NaN.
LEAST, FOUND, SCORE_NAN, WEIGHT_NAN = range(4)
STATE = 4
# Of a part: the key that is to be passed, how many candidates there are, whether a score was NaN, whether there were more than
# there is room for, where its non-zeros start, and how many of them survive.
LIMIT, HELD, NAN, IS_FULL, START, ALIVE = range(6)
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
    "rows", "columns", "nnz", "survivors", "grown", "least", "form", "column_bytes", "parts", "part_count", "values",
    "row_pointers", "indices", "column_pointers", "row_indices", "transposition", "row_starts", "column_starts", "alive",
    "histogram", "state", "keys", "places", "old_indices", "old_values", *(f"slot_{place}" for place in range(MOST_SLOTS)),
    *(f"old_slot_{place}" for place in range(MOST_SLOTS)), *(f"source_{place}" for place in range(4)),
)  # fmt: skip
PLACES = {name: place for place, name in enumerate(COLUMNS)}
# Of a part of a layer's rows, which one thread goes through: which it is, and memory of its own.
PART = (
    "layer", "number", "first", "count", "scores", "state", "keys", "places", "row", "capacity", "histogram", "marks", "counts",
    "following",
)  # fmt: skip
PARTS = 2  # of a layer, at most


class Work:
    """A layer with memory to work in: about what it stores itself, and candidates for what is grown."""

    def __init__(self, storage: Storage, row: Tensor, state: Tensor, form: int, scored: torch.dtype, team: int) -> None:
        """Take memory, a row of the table and its state; `form` is the number of the layer's form, and scores are of a type."""
        self.storage, self.scored, self.grown, self.size = storage, scored, 0, storage.shape[0] * storage.shape[1]
        rows, columns = storage.shape
        self.parts = min(PARTS, team, -(-rows // PIECE)) if self.size >= WORTH_A_TEAM else 1
        # Pieces of rows are whole: where their columns go on is noted by one thread.
        self.bounds = [round(rows * part / self.parts / PIECE) * PIECE for part in range(self.parts)] + [rows]
        self.at_once = max(1, min(-(-rows // self.parts), CHUNK // columns // self.parts))
        nnz, width, slots = storage.values.numel(), storage.values.element_size(), len(storage.slots)
        self.most = 0  # weights to be grown for which there is memory
        self.row, self.known, self.state = row, row.numpy(), state.numpy()
        self.hold(row.new_zeros(self.parts, len(PART)))
        self.part_states = state.new_zeros(self.parts, ALIVE + 1)
        self.fill({"rows": rows, "columns": columns, "nnz": nnz, "form": form, "column_bytes": storage.form.column_bytes})
        self.fill({"state": state.data_ptr(), "part_count": self.parts})
        names = ("row_pointers", "indices", "column_pointers", "row_indices", "transposition", "row_starts", "column_starts")
        for name, tensor in zip((*names, "values"), storage[:-1], strict=True):
            self.fill({name: 0 if tensor is None else tensor.data_ptr()})
        self.fill({f"slot_{place}": slot.data_ptr() for place, slot in enumerate(storage.slots)})
        aside, whole = (nnz + BEHIND) * width, -(-columns // PIECE) * PIECE
        of_part = {
            "row": BLOCK * padded(columns, scored.itemsize) * scored.itemsize, "histogram": HISTOGRAM_BYTES, "marks": whole,
            "counts": 4 * whole, "following": 4 * whole,
        }  # fmt: skip
        sizes: dict[Any, int] = {
            "alive": nnz + BEHIND, "histogram": HISTOGRAM_BYTES, "old_indices": nnz * storage.columns.element_size(),
            "old_values": aside, **{f"old_slot_{place}": aside for place in range(slots)},
            **{(name, part): size for name, size in of_part.items() for part in range(self.parts)},
        }  # fmt: skip
        self.memory, places = _memory(sizes)
        self.fill({name: place for name, place in places.items() if name in COLUMNS})
        for part, (start, end) in enumerate(pairwise(self.bounds)):
            own = {name: places[name, part] for name in of_part} | {"state": self.part_states[part].data_ptr()}
            own |= {"layer": row.data_ptr(), "number": part, "first": start, "count": end - start}
            for name, entry in own.items():
                self.by_part[part, PART.index(name)] = entry

    def fill(self, entries: dict[str, int]) -> None:
        """Write entries of the layer's row of the table."""
        for name, entry in entries.items():
            self.known[PLACES[name]] = entry

    def source(self, *entries: int) -> None:
        """Write where scores come from: two keys of random numbers, or factors and memory for them as they are packed."""
        first = PLACES["source_0"]
        self.known[first : first + len(entries)] = entries

    def hold(self, parts: Tensor) -> None:
        """Have the table of the layer's parts in other memory, where those of other layers stand beside."""
        self.part_rows, self.by_part = parts, parts.numpy()
        self.fill({"parts": parts.data_ptr()})

    def grow(self, grown: int) -> None:
        """Have room for the candidates of so many weights to be grown, as many as are dropped."""
        if grown != self.grown:
            self.fill({"survivors": self.storage.values.numel() - grown, "grown": grown})
        self.grown = grown
        if grown > self.most:
            self.most = grown
            of_part = 2 * grown + self.at_once * self.storage.shape[1] + BEHIND
            rooms = [("", of_part * self.parts), *((part, of_part) for part in range(self.parts))]
            sizes = {
                (name, room): count * size
                for name, size in (("keys", self.scored.itemsize), ("places", 4))
                for room, count in rooms
            }
            self.candidates, places = _memory(sizes)
            self.by_part[:, PART.index("capacity")] = of_part - BEHIND
            for name in ("keys", "places"):
                self.by_part[:, PART.index(name)] = [places[name, part] for part in range(self.parts)]
                self.fill({name: places[name, ""]})


def _memory(sizes: dict[Any, int]) -> tuple[Tensor, dict[Any, int]]:
    """Return memory for arrays of so many bytes, and the address of each, at which a cache line begins."""
    padded = {name: (-(-size // CACHE_LINE) + 1) * CACHE_LINE for name, size in sizes.items()}
    memory = torch.empty(sum(padded.values()) + CACHE_LINE, dtype=torch.uint8, device="cpu")
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
