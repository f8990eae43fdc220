"""Product of few samples with a matrix by its columns on a GPU, by Triton: those of inputs that are zero in all are not read.

A matrix lies column by column, so that a load which is left out for an input that is zero leaves out whole lines of memory: as
in Deja Vu (Liu et al. 2023, arXiv:2310.17157) and TEAL (Liu et al. 2024, arXiv:2408.14690), of whose code nothing is here.
Where most weights are 0 as well, a column is a bit for each and the values of those that are there.

A weight times a skipped zero is 0 whatever the weight; every input but +0 and -0 is multiplied, NaN and infinity too, also with
the zeros among the weights of a column that is read. Never timed: no card was at hand when it was written.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from sparse_models.kernels.asynchronous import is_asynchronous, is_captured
from sparse_models.kernels.cuda import _card
from sparse_models.kernels.source import Source
from sparse_models.kernels.triton import _loading

LARGEST_BATCH = 8  # samples, whose sums are in registers together
WORD = 32  # weights of a column, a bit for each
ROWS, WARPS = 128, 4  # of a program; a line of memory is 128 bytes
STEP = 32  # inputs of a step for a single sample, so that as many loads are under way
PROGRAMS = 8  # that a multiprocessor is to have: what is in flight must fill the time that memory takes
DENSEST = 0.3  # weights that are there, of all, up to which a bit for each is held: a CPU's rule, and untimed on a card
LEAST_STEPS = 4  # of a program: its sums are written, and added up, however few they are


class Columns(NamedTuple):
    """A matrix [rows, columns] by its columns."""

    values: Tensor  # [columns, rows], or those that are there [nnz], in that order
    bits: Tensor | None  # which are there [columns, words], int32; None where all are
    starts: Tensor | None  # where the values of each word begin [columns, words], int32
    height: int  # rows
    width: int  # columns

    @property
    def nbytes(self) -> int:
        """The bytes of all of it."""
        return sum(one.nbytes for one in (self.values, self.bits, self.starts) if one is not None)


def pack(weight: Tensor, *, sparse: bool) -> Columns:
    """Return the matrix of a weight [rows, columns] by its columns; `sparse` holds only what is not zero."""
    rows, columns = weight.shape
    values = weight.detach().t().contiguous()
    if not sparse:
        return Columns(values, None, None, rows, columns)
    kept = functional.pad(values != 0, (0, -rows % WORD)).view(columns, -1, WORD)
    powers = torch.tensor([*(1 << bit for bit in range(WORD - 1)), -(1 << WORD - 1)], dtype=torch.int32, device=weight.device)
    bits, counts = (kept * powers).sum(2, dtype=torch.int32), kept.sum(2)
    starts = (counts.view(-1).cumsum(0).view_as(counts) - counts).int()
    return Columns(values[values != 0], bits, starts, rows, columns)


def product(packed: Columns, x: Tensor, bias: Tensor | None = None, parts: int | None = None) -> Tensor:
    """Return x [batch, columns] times the packed matrix transposed, plus bias [rows]: [batch, rows], sums in float32.

    The inputs are cut into `parts`, as many as a card wants for a matrix of few rows.
    """
    x, batch = x.contiguous(), len(x)
    samples = 1 << (batch - 1).bit_length()
    depth, tiles = depth_for(samples), -(-packed.height // ROWS)
    parts = parts or max(
        1, min(PROGRAMS * _card.card_of(x.device).multiprocessors // tiles, packed.width // (LEAST_STEPS * depth))
    )
    each = -(-packed.width // (parts * depth)) * depth
    parts = -(-packed.width // each)
    result = x.new_empty(parts, batch, packed.height, dtype=x.dtype if parts == 1 else torch.float32)
    bits, starts = (packed.values if one is None else one for one in (packed.bits, packed.starts))
    with torch.cuda.device_of(x):
        _loading.kernels().skipping[tiles, parts](
            x, packed.values, bits, starts, result if bias is None else bias, result,
            batch, packed.width, packed.height, -(-packed.height // WORD), each,
            SAMPLES=samples, DEPTH=depth, ROWS=ROWS, SPARSE=packed.bits is not None, BIASED=bias is not None, num_warps=WARPS,
        )  # fmt: skip
    return result[0] if parts == 1 else result.sum(0).to(x.dtype)


def depth_for(samples: int) -> int:
    """Return the inputs of a step for so many samples, whose sums for each of them are in registers."""
    return max(STEP // 4, STEP // samples)


class Skipping:
    """A copy of the weights by columns on a GPU, made by the first few samples that want it.

    While a CUDA graph is captured none is made: its memory would be the graph's, and empty until that is replayed.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self.held: tuple[Columns, Source] | None = None
        self.captured: list[Columns] = []  # whose memory CUDA graphs read, whatever the weights are by then: never let go of
        self.last: tuple[Tensor, int | None] | None = None  # x of the last product, and how often it had been changed

    def outdate(self) -> None:
        """Have the copy made anew from the next weights: optimizers of one kernel change weights without counting it."""
        self.held = self.last = None

    def product(self, kept: Tensor, values: Tensor, x: Tensor, bias: Tensor | None) -> Tensor | None:
        """Return x [batch, in] times the `kept` of the values [out, in] transposed, plus bias [out]: [batch, out].

        None says that the weights have changed, and that a CUDA graph is being captured.
        """
        now, held = Source.of(kept, values.detach()), self.held
        if held is None or not held[1].has_values_of(now):
            if is_captured(values):
                return None
            weight = (values * kept).detach()
            self.held = held = pack(weight, sparse=int(weight.count_nonzero()) <= DENSEST * weight.numel()), now
            if is_asynchronous(values):  # another stream may be the next to read it
                torch.cuda.current_stream(values.device).synchronize()
        if is_captured(values) and not (self.captured and self.captured[-1] is held[0]):
            self.captured.append(held[0])
        self.last = x.detach(), _changes(x)
        return product(held[0], x, bias)

    def again(self, kept: Tensor | None, parameters: Mapping[str, Tensor | None], x: Tensor) -> None:
        """Return None: to look up the copy takes no longer than to launch a kernel."""

    @property
    def share_read(self) -> float:
        """The share of the columns that the last product read, which the device is asked for; 1 where that is not known.

        It is before the first, and where that input was written over since, but by the replay of a CUDA graph, which is one.
        """
        if self.last is None or _changes(self.last[0]) != self.last[1]:
            return 1.0
        return float((self.last[0] != 0).any(0).double().mean())

    @property
    def bytes_read(self) -> int | None:
        """The bytes of weights that the last product read, if columns have as many each; None where there is no copy."""
        return None if self.held is None else round(self.held[0].nbytes * self.share_read)


def _changes(x: Tensor) -> int | None:
    """Return how often x was changed in place; None of a tensor of inference_mode, which does not count it."""
    return None if x.is_inference() else x._version  # noqa: SLF001  # PyTorch has no public name for it
