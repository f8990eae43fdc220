"""Product of a sparse matrix with few samples: weights in sliced ELLPACK, a window of the input at each step.

A slice is as many rows as a vector has lanes, the longest of some hundred rows first (SELL-C-sigma, Kreutzer et al. 2014,
arXiv:1307.6209): were all rows sorted, threads would write to the same cache lines. A step multiplies one weight of every row,
or in 16 bit two by the instruction that adds up pairs of products, so nothing is added up across lanes, and no row has a
remainder. The weights of some steps lie within a window of the input, whose vectors are permuted into place: to load the
numbers one by one takes twice as long on Zen 5. Rows of equal length are at about the same column at the same step, so few
lanes have no weight in the window; such a lane multiplies 0 with a number of the window, which gives NaN where that is
infinite, as in a dense product.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from sparse_models.kernels.cpu._arithmetic import computed, name_of
from sparse_models.kernels.cpu._compile import has, kernel, vector_bytes
from sparse_models.kernels.cpu._emit import CACHE_LINE
from sparse_models.kernels.cpu.few._slice_kernel import TABLES, Slices, Way, emitter
from sparse_models.kernels.structure import Structure

STEPS = 2  # of a permuted window: its vectors are loaded once for them
TALL = 2**6  # rows from which on two vectors of them share a window
CODES = 2**8  # columns of any other window: as many as a byte numbers
SORTED = 2**8  # rows that are sorted among themselves: of all of them slices would have as many steps, within 1 %


class Sliced(NamedTuple):
    """A matrix [rows, columns]: for each step and lane one value or two, and their columns' places in the step's window."""

    values: Tensor  # [windows * steps * vectors * lanes * pair], 0 where a lane has none
    codes: Tensor  # as many, uint8
    windows: Tensor  # first column of each window [windows], int32
    pointers: Tensor  # first window of each slice [slices + 1], int32
    rows: Tensor | None  # row of each lane [slices * vectors * lanes], int32; None where they follow one another
    sources: Tensor  # where each value was among the non-zeros, int32, nnz where there is none
    height: int  # rows
    width: int  # columns
    way: Way

    @property
    def kernel(self) -> str:
        """The name of its kernel."""
        return "sample"

    @property
    def bytes_read(self) -> int:
        """The bytes that a product reads of it."""
        read = (self.values, self.codes, self.windows, self.pointers, self.rows)
        return sum(tensor.nbytes for tensor in read if tensor is not None)

    def work(self, batch: int) -> int:
        """Return how many weights a thread multiplies, or of one sample would in that time."""
        return len(self.values) * (1 + batch) // 2

    def refill(self, values: Tensor) -> None:
        """Put other `values` [nnz] in the place of its own."""
        torch.index_select(torch.cat([values.detach(), values.new_zeros(1)]), 0, self.sources, out=self.values)

    def taken(self, x: Tensor) -> Tensor:
        """Return x [batch, columns] as the kernel reads it."""
        return x.contiguous() if self.way.pair > 1 else x.to(computed(x.dtype)).contiguous()

    def room(self, batch: int) -> Tensor:
        """Return memory for a product."""
        return self.values.new_empty(batch, self.height, dtype=computed(self.values.dtype))

    def given(self, result: Tensor) -> Tensor:
        """Return a product [batch, rows], rounded once."""
        return result.to(self.values.dtype)

    def function(self, batch: int, *, has_bias: bool) -> int:
        """Return the address of the kernel for so many samples."""
        return _product(name_of(self.values.dtype), batch, self.way, is_direct=self.rows is None, has_bias=has_bias)

    def arguments(self, x: Tensor, result: Tensor, bias: Tensor | None, team: int) -> list[Tensor | int]:
        """Return what the kernel is given; its first three are x, result and bias."""
        rows = self.pointers if self.rows is None else self.rows
        own = (self.pointers, self.windows, self.codes, self.values, rows)
        return [x, result, result if bias is None else bias, *own, len(self.pointers) - 1, self.width, self.height, team]


def _lanes(dtype: torch.dtype) -> int:
    return vector_bytes() // computed(dtype).itemsize


def _is_permuted(dtype: torch.dtype) -> bool:
    """Tell whether there is an instruction that takes numbers from two vectors: of AVX-512, in single precision."""
    return computed(dtype) == torch.float32 and vector_bytes() == 64


def window(dtype: torch.dtype) -> int:
    """Return the columns of a window."""
    return TABLES * _lanes(dtype) if _is_permuted(dtype) else CODES


def fewest_columns(dtype: torch.dtype) -> int:
    """Return how many columns a matrix must have: those of a window where all of it is loaded."""
    return window(dtype) if _is_permuted(dtype) else 1


def most_samples(dtype: torch.dtype) -> int:
    """Return up to how many samples slices are faster than tiles: fewer where numbers are loaded one by one for each."""
    return 8 if _is_permuted(dtype) else 2


def way_of(dtype: torch.dtype, rows: int, columns: int) -> Way:
    """Return how a matrix is put in slices."""
    own = window(dtype)
    if not _is_permuted(dtype):
        return Way(own, 1, 1, 1, is_permuted=False)
    vectors = 2 if rows >= TALL else 1
    if dtype == torch.bfloat16 and has("avx512bf16") and columns >= 2 * own:
        return Way(2 * own, STEPS, vectors, 2, is_permuted=True)
    return Way(own, STEPS, vectors, 1, is_permuted=True)


def pack(structure: Structure, values: Tensor) -> Sliced:
    """Return the matrix that holds `values` [nnz], one at least, in slices; each row's columns must be in order."""
    nnz, way = len(values), way_of(values.dtype, structure.rows, structure.columns)
    lanes = _lanes(values.dtype) * way.vectors
    slots = way.steps * way.pair
    order = _longest_first(structure.pointers.diff())
    is_direct = structure.rows % lanes == 0 and bool((order.diff() == 1).all())
    # Lanes that are left over do the last row once more.
    order = torch.cat([order, order[-1:].expand(-structure.rows % lanes)]).reshape(-1, lanes)
    columns = torch.cat([structure.indices.int(), structure.indices.new_zeros(slots, dtype=torch.int32)])
    place, end = structure.pointers[order], structure.pointers[order + 1, None]  # [slices, lanes], and for each slot
    last, none = max(0, structure.columns - way.window), 2**31 - 1
    align = CACHE_LINE * way.pair // computed(values.dtype).itemsize
    windows, sources, codes = [], [], []
    while True:
        next_places = place[:, :, None] + torch.arange(slots, device=place.device)
        column = torch.where(next_places < end, columns[next_places], none)
        first = column[:, :, 0].amin(1)
        if int(first.min()) == none:
            break
        start = (first // align * align).clamp_(max=last)
        is_taken = column < (start + way.window)[:, None, None]
        windows.append(torch.where(first < none, start, -1))
        sources.append(torch.where(is_taken, next_places, nnz).int())
        codes.append(torch.where(is_taken, column - start[:, None, None], 0).byte())
        place = place + is_taken.sum(2)
    starts = torch.stack(windows, 1)  # [slices, windows]
    is_there = starts >= 0
    by_step = (-1, lanes, way.steps, way.pair)
    source, code = (torch.stack(parts, 1)[is_there].view(by_step).transpose(1, 2).reshape(-1) for parts in (sources, codes))
    pointers = columns.new_zeros(len(order) + 1)
    torch.cumsum(is_there.sum(1), 0, out=pointers[1:])
    rows = None if is_direct else order.int().reshape(-1)
    held = values.new_empty(len(source))
    packed = Sliced(held, code, starts[is_there], pointers, rows, source, structure.rows, structure.columns, way)
    packed.refill(values)
    return packed


def _longest_first(lengths: Tensor) -> Tensor:
    """Return the order of rows, of which each SORTED that follow one another are sorted by their lengths, the longest first."""
    blocks = functional.pad(lengths, (0, -len(lengths) % SORTED), value=-1).view(-1, SORTED)
    starts = torch.arange(0, blocks.numel(), SORTED, device=lengths.device)[:, None]
    return (blocks.argsort(dim=1, descending=True, stable=True) + starts).view(-1)[: len(lengths)]


@kernel
def _product(dtype: str, batch: int, way: Way, *, is_direct: bool, has_bias: bool) -> int:
    """Return the address of the kernel of `product`: slices are shared out among as many tasks as there are threads."""
    emit = emitter(dtype)
    *addresses, slices, columns, height, tasks = (emit.argument(place) for place in range(12))
    own = Slices(emit, dtype, way, addresses, (batch, columns, height))
    with emit.tasks(tasks) as task:
        own.multiply(emit.share(slices, task, tasks), is_direct=is_direct, has_bias=has_bias)
    return emit.compiled()
