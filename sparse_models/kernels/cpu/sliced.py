"""Product of a sparse matrix with one column of numbers: weights in sliced ELLPACK, a window of the input at each step.

A slice is as many rows as a vector has lanes, the longest rows first (SELL-C-sigma, Kreutzer et al. 2014, arXiv:1307.6209). A
step multiplies one weight of every row, so nothing is added up across lanes, and no row has a remainder. The weights of a step
lie within a window of the input, whose vectors are permuted into place: to load the numbers one by one takes twice as long on
Zen 5. Rows of equal length are at about the same column at the same step, so few lanes have no weight in the window; such
a lane multiplies 0 with a number of the window, which gives NaN where that is infinite, as in a dense product.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from llvmlite import ir
from torch import Tensor

from sparse_models.kernels.cpu._arithmetic import BYTES, name_of
from sparse_models.kernels.cpu._compile import kernel, vector_bytes
from sparse_models.kernels.cpu._emit import CACHE_LINE, TICKETS, Emitter
from sparse_models.kernels.cpu._team import passed, run, run_on, threads_for
from sparse_models.kernels.cpu._tile import emitter_for
from sparse_models.kernels.source import Source
from sparse_models.kernels.structure import Structure

TABLES = 4  # vectors that a permuted window consists of: with 2, rows wait more often; with 8, permuting takes longer
CODES = 2**8  # columns of any other window: as many as a byte numbers


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
    def bytes_read(self) -> int:
        """The bytes that a product reads of it."""
        read = (self.values, self.codes, self.windows, self.pointers, self.rows)
        return sum(tensor.nbytes for tensor in read if tensor is not None)


def _lanes(dtype: torch.dtype) -> int:
    return vector_bytes() // BYTES[name_of(dtype)]


def _is_permuted(dtype: torch.dtype) -> bool:
    """Tell whether there is an instruction that takes numbers from two vectors: of AVX-512, in single precision."""
    return dtype == torch.float32 and vector_bytes() == 64


def window(dtype: torch.dtype) -> int:
    """Return the columns of a window: a matrix must have so many at least."""
    return TABLES * _lanes(dtype) if _is_permuted(dtype) else CODES


def pack(structure: Structure, values: Tensor) -> Sliced:
    """Return the matrix that holds `values` [nnz], one at least, in slices; each row's columns must be in order."""
    lanes, nnz = _lanes(values.dtype), len(values)
    order = structure.pointers.diff().argsort(descending=True, stable=True)
    is_direct = structure.rows % lanes == 0 and bool((order.diff() == 1).all())
    # Lanes that are left over do the last row once more.
    order = torch.cat([order, order[-1:].expand(-structure.rows % lanes)]).reshape(-1, lanes)
    columns = torch.cat([structure.indices.int(), structure.indices.new_zeros(1, dtype=torch.int32)])
    place, end = structure.pointers[order], structure.pointers[order + 1]  # [slices, lanes]
    last, align, none = structure.columns - window(values.dtype), CACHE_LINE // values.element_size(), 2**31 - 1
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
    refill(packed, values)
    return packed


def refill(packed: Sliced, values: Tensor) -> None:
    """Put other `values` [nnz] in the place of a packed matrix's own."""
    torch.index_select(torch.cat([values.detach(), values.new_zeros(1)]), 0, packed.sources, out=packed.values)


def product(packed: Sliced, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return the packed matrix times x [columns], plus bias [rows]: [rows], all contiguous."""
    result, team = x.new_empty(packed.height), threads_for(len(packed.values))
    run(_function(packed, bias), _arguments(packed, x, result, bias, team), team)
    return result


def _function(packed: Sliced, bias: Tensor | None) -> int:
    return _product(name_of(packed.values.dtype), is_direct=packed.rows is None, has_bias=bias is not None)


def _arguments(packed: Sliced, x: Tensor, result: Tensor, bias: Tensor | None, team: int) -> list[Tensor | int]:
    rows = packed.pointers if packed.rows is None else packed.rows
    own = (packed.pointers, packed.windows, packed.codes, packed.values, rows)
    return [x, result, result if bias is None else bias, *own, len(packed.pointers) - 1, team]


class Ready:
    """The product of one sample with all that is known before it: to look that up again takes 10 us, as long as a product."""

    def __init__(self, packed: Sliced, values: Tensor, bias: Tensor | None, x: Tensor, result: Tensor) -> None:
        """Hold it for a layer's own values and bias, and for x [1, in] like this one."""
        self.values, self.bias, self.version, self.places = values, bias, values._version, _places(values, bias)  # noqa: SLF001
        self.shape, self.dtype, self.team = x.shape, x.dtype, threads_for(len(packed.values))
        self.result_shape, self.function = result.shape, _function(packed, bias)
        self.packed, self.numbers = packed, passed(_arguments(packed, x, result, bias, self.team))

    def product(self, values: Any, bias: Any, x: Tensor) -> Tensor | None:
        """Return x [1, in] times the weights, plus bias: [1, out]; None where anything is not as it was."""
        if not self.is_current(values, bias) or threads_for(len(self.packed.values)) != self.team:
            return None
        if x.shape != self.shape or x.dtype != self.dtype or not x.is_cpu or not x.is_contiguous() or x.is_neg():
            return None
        result = x.new_empty(self.result_shape)
        numbers = self.numbers[:]
        numbers[TICKETS], numbers[TICKETS + 1] = x.data_ptr(), result.data_ptr()
        if bias is None:
            numbers[TICKETS + 2] = numbers[TICKETS + 1]
        run_on(self.function, numbers, self.team)
        return result

    def is_current(self, values: Any, bias: Any) -> bool:
        """Tell whether a layer's values and bias are still those that it was made for."""
        is_known = values is self.values and bias is self.bias and values._version == self.version  # noqa: SLF001
        return is_known and _places(values, bias) == self.places


def _places(values: Tensor, bias: Tensor | None) -> tuple[int, int]:
    return values.data_ptr(), 0 if bias is None else bias.data_ptr()


class Frozen:
    """A packed copy of a layer's weights, made by the first sample that needs it and anew where they changed."""

    def __init__(self) -> None:
        """Begin with none."""
        self.held: tuple[Sliced, Source] | None = None
        self.ready: Ready | None = None

    def outdate(self) -> None:
        """Have the copy made anew from the next weights: optimizers of one kernel change weights without counting it."""
        self.ready = None
        if self.held is not None:
            packed, source = self.held
            self.held = packed, source.outdated()

    def product(self, structure: Structure, values: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return x [1, in] times the matrix that holds `values` [nnz] transposed, plus bias [out]: [1, out]."""
        now = Source.of(structure.indices, values.detach())
        packed, source = self.held or (None, None)
        if packed is None or source is None or not source.has_values_of(now):
            if packed is not None and source is not None and source.has_structure_of(now):
                refill(packed, values)
            else:
                packed = pack(structure, values)
            self.held = packed, now
        result = product(packed, x.reshape(-1).contiguous(), bias).view(1, -1)
        self.ready = Ready(packed, values, bias, x, result)
        return result

    def again(self, parameters: Mapping[str, Tensor | None], x: Tensor) -> Tensor | None:
        """Return what `product` does for a layer's own parameters where nothing has changed since its last call, or None."""
        if self.ready is None:
            return None
        return self.ready.product(parameters.get("values"), parameters.get("bias"), x)

    def copied(self, before: Source, now: Source) -> "Frozen":
        """Return a copy for a copy of the layer, of whose weights `now` says what `before` says of this one's."""
        other = Frozen()
        if self.held is not None and self.held[1].has_values_of(before):
            packed = self.held[0]
            other.held = packed._replace(values=packed.values.clone()), now  # nothing else of it is ever written to
        return other

    @property
    def bytes_read(self) -> int | None:
        """The bytes of weights and structure that a product reads; None where there is no copy."""
        return None if self.held is None else self.held[0].bytes_read


@kernel
def _product(dtype: str, *, is_direct: bool, has_bias: bool) -> int:
    """Return the address of the kernel of `product`: slices are shared out among as many tasks as there are threads."""
    emit = emitter_for(dtype, vector_bytes())
    *addresses, slices, tasks = (emit.argument(place) for place in range(10))
    with emit.tasks(tasks) as task:
        emit_slices(emit, addresses, emit.share(slices, task, tasks), is_direct=is_direct, has_bias=has_bias)
    return emit.compiled()


def emit_slices(
    emit: Emitter, addresses: Sequence[Any], some: Sequence[Any], *, is_direct: bool, has_bias: bool, relu: bool = False
) -> None:
    """Emit the product of some slices, from one to below another, at addresses as `_arguments` has them."""
    x, result, bias, pointers, windows, codes, values, rows = addresses
    with emit.loop(*some) as part:
        lane = emit.times(part.place, emit.lanes)
        own_rows = [] if is_direct else emit.indices(rows, lane, emit.lanes, 4)
        total = emit.zero()
        if has_bias and is_direct:
            total = emit.load(emit.vector, emit.add(bias, emit.times(lane, emit.width)))
        elif has_bias:
            total = emit.gathered(bias, own_rows)
        start, end = (emit.index(pointers, emit.add(part.place, side)) for side in (0, 1))
        with emit.loop(start, end, 1, [total]) as step:
            at = emit.times(step.place, emit.lanes)
            own = emit.load(emit.vector, emit.add(values, emit.times(at, emit.width)))
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
