"""Product of few samples with a matrix by its columns: those of inputs that are zero in all samples are not read.

First the inputs that are not zero are listed, a panel of them at a time; then a strip of rows goes through the columns of that
list, its sums in registers. What is read of a column in a strip lies side by side, and is asked for a few columns before it is
needed, as no processor guesses which is next. Columns are dense or, where many weights are 0 as well and the processor has
AVX-512 or AVX2, a bit for each weight and the values of those that are there, as in `bitmap`.

A weight times a skipped zero is 0 whatever the weight; a dense product gives NaN where that is infinite. Every input but +0 and
-0 is multiplied, NaN and infinity too, also with the zeros among the weights of a column that is read.
"""

from array import array
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from sparse_models.kernels.cpu._arithmetic import computed, name_of
from sparse_models.kernels.cpu._compile import has, vector_bytes
from sparse_models.kernels.cpu._emit import CACHE_LINE
from sparse_models.kernels.cpu._team import threads, threads_for
from sparse_models.kernels.cpu.few import _column_kernel, bitmap

LARGEST_BATCH = 8  # samples, whose sums are in registers together
STRIP = 8  # vectors of a strip of rows, at most: as many sums as hide the time that a multiply-add takes


class Columns(NamedTuple):
    """A matrix [rows, columns] in strips of rows, those column by column."""

    values: Tensor  # [strips, columns, rows of a strip]; or those that are there [nnz], and a vector of zeros after them
    bits: Tensor | None  # of each vector of `values` which are there [strips, columns, vectors]; None where all are
    starts: Tensor | None  # where the values of a strip's column begin [strips, columns], int32
    seen: "array[int]"  # how many columns the last product read
    chunks: int  # vectors of a strip
    height: int  # rows
    width: int  # columns

    @property
    def kernel(self) -> str:
        """The name of its kernel."""
        return "columns"

    @property
    def bytes_read(self) -> int:
        """The bytes that the last product read of it; before the first, all."""
        return sum(tensor.nbytes for tensor in self._parts) * self.seen[0] // self.width

    @property
    def _parts(self) -> list[Tensor]:
        return [tensor for tensor in (self.values, self.bits, self.starts) if tensor is not None]

    @property
    def lines(self) -> int:
        """How many cache lines are asked for of a sparse column in a strip: of each number a kernel is compiled."""
        columns = 1 if self.starts is None else self.starts.numel()
        return 1 if self.values.nbytes <= columns * CACHE_LINE else 3

    def work(self, batch: int) -> int:  # noqa: ARG002  # they are read once for all samples
        """Return how many weights are read, if as many inputs are zero as in the last product."""
        return self.seen[0] * self.height

    @property
    def team(self) -> int:
        """How many threads are worth having, if as many inputs are zero as in the last product."""
        return threads_for(self.work(1))

    def taken(self, x: Tensor) -> Tensor:
        """Return x [batch, columns] as the kernel reads it."""
        return x.to(computed(x.dtype)).contiguous()

    def room(self, batch: int) -> Tensor:
        """Return memory for a product."""
        return self.values.new_empty(batch, self.height, dtype=computed(self.values.dtype))

    def given(self, result: Tensor) -> Tensor:
        """Return a product [batch, rows], rounded once."""
        return result.to(self.values.dtype)

    def function(self, batch: int, *, has_bias: bool) -> int:
        """Return the address of the kernel for so many samples."""
        lines = 0 if self.bits is None else self.lines
        return _column_kernel.product(name_of(self.values.dtype), batch, self.chunks, has_bias=has_bias, sparse_lines=lines)

    def arguments(self, x: Tensor, result: Tensor, bias: Tensor | None, team: int) -> list[Tensor | int]:  # noqa: ARG002
        """Return what the kernel is given; its first three are x, result and bias."""
        added = result if bias is None else bias.to(result.dtype).contiguous()
        bits, starts = (self.values if one is None else one for one in (self.bits, self.starts))
        strip = self.chunks * vector_bytes() // result.element_size()
        sizes = (self.height, self.width, -(-self.height // strip), threads())
        return [x, result, added, self.values, bits, starts, torch.frombuffer(self.seen, dtype=torch.int64), *sizes]


def is_possible(dtype: torch.dtype) -> bool:
    """Tell whether there are sparse columns of a type on this processor."""
    return bitmap.is_possible(dtype) or (dtype != torch.float64 and vector_bytes() == 32 and has("avx2"))


def pack(weight: Tensor, *, sparse: bool) -> Columns:
    """Return the matrix of a weight [rows, columns] by its columns; `sparse` holds only what is not zero."""
    rows, columns = weight.shape
    lanes = vector_bytes() // computed(weight.dtype).itemsize
    vectors = -(-rows // lanes)
    chunks = min(STRIP, 1 << (vectors - 1).bit_length())
    strips = -(-vectors // chunks)
    whole = functional.pad(weight.detach(), (0, 0, 0, strips * chunks * lanes - rows))
    values = whole.view(strips, chunks * lanes, columns).transpose(1, 2).contiguous()
    seen = array("q", [columns])
    if not sparse:
        return Columns(values, None, None, seen, chunks, rows, columns)
    kept = values != 0
    powers = torch.tensor([1 << bit for bit in range(lanes)], dtype=torch.int32, device=weight.device)
    bits = (
        (kept.view(strips, columns, chunks, lanes) * powers)
        .sum(3, dtype=torch.int32)
        .to(torch.int16 if lanes == 16 else torch.uint8)
    )
    counts = kept.sum(2, dtype=torch.int32)
    starts = counts.view(-1).cumsum(0, dtype=torch.int32).view_as(counts) - counts
    return Columns(functional.pad(values[kept], (0, lanes)), bits, starts, seen, chunks, rows, columns)
