"""A layer's mask update on a GPU by two kernels: what is chosen, then the index both ways, values and optimizer slots.

Both have phases, each of which needs all of the one before. A small layer's are all done by one block, in one launch of each
kernel; a large one's take a launch each, of a block for each chunk. Nothing depends on the order of blocks or threads.
"""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from sparse_models.kernels.cpu.moves._table import MOST_SLOTS, Storage
from sparse_models.kernels.cuda import _compile
from sparse_models.kernels.cuda._compile import OLDEST, Launch, Macros

THREADS = 1024
WORD = 32  # places of a row whose bits are one
CHUNK = 1024  # words of a block; as it counts in 16 bit, fewer than 2048
SMALL = 2048  # words of a layer that one block takes: by estimate some 50 us, where launches take the host 10 us each
BINS = 2048  # of a histogram, the widest
STATE = 8  # integers before the histogram: of what was chosen twice 3, whether there were NaN, a ticket
NAN = 6
CHOOSE_BYTES, REBUILD_BYTES = 4 * (BINS + WORD + 2), 4 * WORD
# The integers that numbers are read as, and what infinity is as one; scores that are drawn have none.
KINDS = {
    torch.float32: ("u32", 0x7F800000),
    torch.float16: ("u16", 0x7C00),
    torch.bfloat16: ("u16", 0x7F80),
    None: ("u32", 0),
}
INDICES = {torch.int16: "short", torch.int32: "int"}


class Scores(NamedTuple):
    """What is grown by: the gradient of every weight [out, in], or random numbers by two keys, drawn on the device or here."""

    gradient: Tensor | None = None
    drawn: Tensor | None = None  # [2], int32
    keys: tuple[int, int] = (0, 0)


def new_states(layers: int, device: torch.device) -> Tensor:
    """Return what the kernels keep of so many layers from phase to phase, all 0 [layers, ...]."""
    return torch.zeros(layers, STATE + BINS, dtype=torch.int32, device=device)


class Moving:
    """A layer on its way to another mask of as many weights: `choose` changes nothing of it, `rebuild` does."""

    def __init__(self, storage: Storage, scores: Scores, grown: int, state: Tensor) -> None:
        """Take what a layer is stored as, how many of its weights are grown and by what, and its row of `new_states`."""
        self.storage, self.scores, self.state = storage, scores, state
        (self.rows, self.columns), nnz = storage.shape, storage.values.numel()
        self.groups = -(-self.columns // WORD)
        words, turned = self.rows * self.groups, self.columns * -(-self.rows // WORD)
        self.chunk = words if words <= SMALL else CHUNK
        self.chunks, self.value_chunks = -(-words // self.chunk), max(1, -(-nnz // (WORD * self.chunk)))
        self.kept = nnz - grown, grown
        scored = None if scores.gradient is None else scores.gradient.dtype
        self.wide = storage.values.dtype == torch.float32, scored in (torch.float32, None)
        bins = max(512 if is_wide else 128 for is_wide in self.wide)
        tails = max(self.chunks, self.value_chunks) * bins // 2 if self.chunks > 1 else 1  # of 16 bit
        sizes = [*[words] * 5, turned, self.chunks + self.groups, tails]
        parts = torch.empty(sum(sizes), dtype=torch.int32, device=state.device).split(sizes)
        self.was, self.alive, self.starts, self.now, self.ranks, self.turned, self.counts, self.tails = parts
        number, score = KINDS[storage.values.dtype], KINDS[scored]
        self.macros: Macros = (
            ("THREADS", THREADS), ("NUMBER", number[0]), ("INFINITE", number[1]), ("SCORE", score[0]),
            ("SCORE_INFINITE", score[1]), ("INDEX", INDICES[storage.columns.dtype]), ("ROW", INDICES[storage.rows.dtype]),
        )  # fmt: skip

    def choose(self) -> None:
        """Find which weights survive and which are grown, as `prune_and_regrow` does of magnitudes and `scores`."""
        own, (values, scores) = self.storage, (3 if is_wide else 2 for is_wide in self.wide)
        if self.chunks == 1:
            launches = [(1, 0, values + 1 + scores)]
        else:
            firsts = range(values) if self.value_chunks > 1 else [0]
            launches = [(self.value_chunks, first, first + values // len(firsts)) for first in firsts]
            launches += [(self.chunks, first, first + 1) for first in range(values, values + 1 + scores)]
        tensors = own.values, own.columns, own.row_pointers, self.scores.gradient, self.scores.drawn, *self.scores.keys
        kept = self.state, self.tails, self.was, self.alive, self.starts
        sizes = self.rows, self.columns, own.values.numel(), *self.kept, self.chunk
        for grid, *phases in launches:
            launch = Launch((grid, 1), THREADS, CHOOSE_BYTES)
            _compile.run("moves/choose.cu", self.macros, launch, *tensors, *kept, *sizes, *phases)

    def rebuild(self, into: Storage) -> None:
        """Write what the layer is stored as then, in its own memory or in other."""
        own, nnz, in_place = [self.storage.values, *self.storage.slots], self.storage.values.numel(), into is self.storage
        to = [into.values, *into.slots]
        source = list(own[0].new_empty(len(own), nnz).unbind()) if in_place else own
        none = [None] * (1 + MOST_SLOTS - len(own))
        launches = [(1, 0, 3)]
        if self.chunks > 1:
            launches = [(self.chunks, 0, 1), (self.chunks + self.groups, 1, 2), (self.groups, 2, 3)]
        known = self.scores.gradient, self.scores.drawn, *self.scores.keys, self.state, self.was, self.alive, self.starts
        sizes = len(own), int(in_place), self.rows, self.columns, nnz, self.chunk, self.groups if self.chunks == 1 else 1
        written = self.now, self.ranks, self.turned, self.counts, *into[:5], *source, *none, *to, *none
        for grid, *phases in launches:
            launch = Launch((grid, 1), THREADS, REBUILD_BYTES)
            _compile.run("moves/rebuild.cu", self.macros, launch, *known, *written, *sizes, *phases)


def fits(storage: Storage) -> bool:
    """Tell whether the kernels, which see addresses alone, read and write it as it is meant, on a card that they run on."""
    values, index, slots = storage.values, storage[:5], storage.slots
    if not (on_a_gpu(values) and values.dtype in KINDS and values.dim() == 1 and len(slots) <= MOST_SLOTS):
        return False
    like = all(type(slot) is Tensor and (slot.shape, slot.dtype) == (values.shape, values.dtype) for slot in slots)
    known = storage.columns.dtype in INDICES and storage.rows.dtype in INDICES
    known = known and all(one.dtype == torch.int32 for one in (index[0], index[2], index[4]))
    plain = all(
        one.is_contiguous() and one.device == values.device and not (one.is_neg() or one.is_inference())
        for one in (*index, values, *slots)
    )
    rows, columns = storage.shape
    sized = rows * (columns + WORD) < 2**31 and columns * (rows + WORD) < 2**31
    sized = sized and values.numel() == storage.columns.numel() == storage.rows.numel()
    return like and known and plain and sized


def on_a_gpu(x: Tensor) -> bool:
    """Tell whether there are kernels for where x is; tests let an emulator be there."""
    return x.is_cuda and _compile.why_absent() is None and _is_new(x.device)


@cache
def _is_new(device: torch.device) -> bool:
    return torch.cuda.get_device_capability(device)[0] >= OLDEST
