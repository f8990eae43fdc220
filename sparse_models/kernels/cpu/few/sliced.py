"""Product of a sparse matrix with one column of numbers: weights in sliced ELLPACK, a window of the input at each step.

A slice is as many rows as a vector has lanes, the longest of some hundred rows first (SELL-C-sigma, Kreutzer et al. 2014,
arXiv:1307.6209): were all rows sorted, threads would write to the same cache lines. A step multiplies one weight of every row,
so nothing is added up across lanes, and no row has a remainder. The weights of a step lie within a window of the input, whose
vectors are permuted into place: to load the numbers one by one takes twice as long on Zen 5. Rows of equal length are at about
the same column at the same step, so few lanes have no weight in the window; such a lane multiplies 0 with a number of the
window, which gives NaN where that is infinite, as in a dense product.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from llvmlite import ir
from torch import Tensor
from torch.nn import functional

from sparse_models.kernels.cpu._arithmetic import SHORT, computed, name_of
from sparse_models.kernels.cpu._compile import kernel, vector_bytes
from sparse_models.kernels.cpu._emit import CACHE_LINE, Emitter
from sparse_models.kernels.cpu._tile import emitter_for
from sparse_models.kernels.structure import Structure

TABLES = 4  # vectors that a permuted window consists of: with 2, rows wait more often; with 8, permuting takes longer
CODES = 2**8  # columns of any other window: as many as a byte numbers
SORTED = 2**8  # rows that are sorted among themselves: of all of them slices would have as many steps, within 1 %


class Sliced(NamedTuple):
    """A matrix [rows, columns]: for each step and lane a value and its column's place in the step's window."""

    values: Tensor  # [steps * lanes], 0 where a lane has none
    codes: Tensor  # [steps * lanes], uint8
    windows: Tensor  # first column of each step's window [steps], int32
    pointers: Tensor  # first step of each slice [slices + 1], int32
    rows: Tensor | None  # row of each lane [slices * lanes], int32; None where they follow one another
    sources: Tensor  # where each value was among the non-zeros [steps * lanes], int32, nnz where there is none
    height: int  # rows

    @property
    def kernel(self) -> str:
        """The name of its kernel."""
        return "sample"

    @property
    def bytes_read(self) -> int:
        """The bytes that a product reads of it."""
        read = (self.values, self.codes, self.windows, self.pointers, self.rows)
        return sum(tensor.nbytes for tensor in read if tensor is not None)

    def work(self, batch: int) -> int:  # noqa: ARG002  # of one sample
        """Return how many weights a thread multiplies."""
        return len(self.values)

    def refill(self, values: Tensor) -> None:
        """Put other `values` [nnz] in the place of its own."""
        torch.index_select(torch.cat([values.detach(), values.new_zeros(1)]), 0, self.sources, out=self.values)

    def taken(self, x: Tensor) -> Tensor:
        """Return x [1, columns] as the kernel reads it."""
        return x.to(computed(x.dtype)).contiguous()

    def room(self, batch: int) -> Tensor:
        """Return memory for a product."""
        return self.values.new_empty(batch, self.height, dtype=computed(self.values.dtype))

    def given(self, result: Tensor) -> Tensor:
        """Return a product [1, rows], rounded once."""
        return result.to(self.values.dtype)

    def function(self, batch: int, *, has_bias: bool) -> int:  # noqa: ARG002  # of one sample
        """Return the address of the kernel."""
        return _product(name_of(self.values.dtype), is_direct=self.rows is None, has_bias=has_bias)

    def arguments(self, x: Tensor, result: Tensor, bias: Tensor | None, team: int) -> list[Tensor | int]:
        """Return what the kernel is given; its first three are x, result and bias."""
        rows = self.pointers if self.rows is None else self.rows
        own = (self.pointers, self.windows, self.codes, self.values, rows)
        return [x, result, result if bias is None else bias, *own, len(self.pointers) - 1, team]


def _lanes(dtype: torch.dtype) -> int:
    return vector_bytes() // computed(dtype).itemsize


def _is_permuted(dtype: torch.dtype) -> bool:
    """Tell whether there is an instruction that takes numbers from two vectors: of AVX-512, in single precision."""
    return computed(dtype) == torch.float32 and vector_bytes() == 64


def window(dtype: torch.dtype) -> int:
    """Return the columns of a window: a matrix must have so many at least."""
    return TABLES * _lanes(dtype) if _is_permuted(dtype) else CODES


def pack(structure: Structure, values: Tensor) -> Sliced:
    """Return the matrix that holds `values` [nnz], one at least, in slices; each row's columns must be in order."""
    lanes, nnz = _lanes(values.dtype), len(values)
    order = _longest_first(structure.pointers.diff())
    is_direct = structure.rows % lanes == 0 and bool((order.diff() == 1).all())
    # Lanes that are left over do the last row once more.
    order = torch.cat([order, order[-1:].expand(-structure.rows % lanes)]).reshape(-1, lanes)
    columns = torch.cat([structure.indices.int(), structure.indices.new_zeros(1, dtype=torch.int32)])
    place, end = structure.pointers[order], structure.pointers[order + 1]  # [slices, lanes]
    last, align, none = structure.columns - window(values.dtype), CACHE_LINE // computed(values.dtype).itemsize, 2**31 - 1
    windows, sources, codes = [], [], []
    while True:
        column = torch.where(place < end, columns[place], none)
        first = column.amin(1, keepdim=True)
        if int(first.min()) == none:
            break
        start = (first // align * align).clamp_(max=last)
        is_taken = column < start + window(values.dtype)
        windows.append(torch.where(first < none, start, -1))
        sources.append(torch.where(is_taken, place, nnz).int())
        codes.append(torch.where(is_taken, column - start, 0).byte())
        place = place + is_taken
    starts = torch.cat(windows, 1)  # [slices, steps]
    is_there = starts >= 0
    source, code = (torch.stack(parts, 1)[is_there].reshape(-1) for parts in (sources, codes))
    pointers = columns.new_zeros(len(order) + 1)
    torch.cumsum(is_there.sum(1), 0, out=pointers[1:])
    rows = None if is_direct else order.int().reshape(-1)
    packed = Sliced(values.new_empty(len(source)), code, starts[is_there], pointers, rows, source, structure.rows)
    packed.refill(values)
    return packed


def _longest_first(lengths: Tensor) -> Tensor:
    """Return the order of rows, of which each SORTED that follow one another are sorted by their lengths, the longest first."""
    blocks = functional.pad(lengths, (0, -len(lengths) % SORTED), value=-1).view(-1, SORTED)
    starts = torch.arange(0, blocks.numel(), SORTED)[:, None]
    return (blocks.argsort(dim=1, descending=True, stable=True) + starts).view(-1)[: len(lengths)]


@kernel
def _product(dtype: str, *, is_direct: bool, has_bias: bool) -> int:
    """Return the address of the kernel of `product`: slices are shared out among as many tasks as there are threads."""
    emit = emitter_for(name_of(computed(getattr(torch, dtype))), vector_bytes())
    *addresses, slices, tasks = (emit.argument(place) for place in range(10))
    with emit.tasks(tasks) as task:
        some = emit.share(slices, task, tasks)
        emit_slices(emit, addresses, some, dtype, is_direct=is_direct, has_bias=has_bias)
    return emit.compiled()


def emit_slices(
    emit: Emitter,
    addresses: Sequence[Any],
    some: Sequence[Any],
    dtype: str,
    *,
    is_direct: bool,
    has_bias: bool,
    relu: bool = False,
) -> None:
    """Emit the product of some slices, from one to below another, at addresses as `arguments` has them, stored in a dtype."""
    stored: torch.dtype = getattr(torch, dtype)
    x, result, bias, pointers, windows, codes, values, rows = addresses
    with emit.loop(*some) as part:
        lane = emit.times(part.place, emit.lanes)
        own_rows = [] if is_direct else emit.indices(rows, lane, emit.lanes, 4)
        total = emit.zero()
        if has_bias and is_direct:
            total = emit.widened_at(emit.add(bias, emit.times(lane, stored.itemsize)), emit.lanes, dtype)
        elif has_bias and dtype in SHORT:
            total = emit.widened(emit.gathered(bias, own_rows, ir.IntType(16)), dtype)
        elif has_bias:
            total = emit.gathered(bias, own_rows)
        start, end = (emit.index(pointers, emit.add(part.place, side)) for side in (0, 1))
        with emit.loop(start, end, 1, [total]) as step:
            at = emit.times(step.place, emit.lanes)
            own = emit.widened_at(emit.add(values, emit.times(at, stored.itemsize)), emit.lanes, dtype)
            first = emit.add(x, emit.times(emit.index(windows, step.place), emit.width))
            step.carried = [emit.multiply_add(own, _looked_up(emit, first, codes, at), *step.carried)]
        [total] = step.carried
        total = emit.passed(total, total) if relu else total
        if is_direct:
            emit.store(total, emit.add(result, emit.times(lane, emit.width)))
        for number, row in enumerate(own_rows):
            one = emit.builder.extract_element(total, ir.Constant(ir.IntType(32), number))
            emit.store(one, emit.add(result, emit.times(row, emit.width)))


def _looked_up(emit: Emitter, window: Any, codes: Any, at: Any) -> Any:
    """Return a vector of the numbers of a window that some codes stand for."""
    if not (emit.width == 4 and vector_bytes() == 64):
        return emit.gathered(window, emit.indices(codes, at, emit.lanes, 1))
    wide = ir.VectorType(ir.IntType(32), emit.lanes)
    code = emit.builder.zext(emit.load(ir.VectorType(ir.IntType(8), emit.lanes), emit.add(codes, at)), wide)
    first, second, third, fourth = emit.vectors(window, TABLES)
    is_high = emit.builder.icmp_unsigned(">=", code, ir.Constant(wide, [2 * emit.lanes] * emit.lanes))
    return emit.builder.select(is_high, emit.picked(third, fourth, code), emit.picked(first, second, code))
