"""Products of a sparse matrix with feature-major activations, a tile of the batch at a time.

A tile is a piece of the batch as wide as eight vectors. Its rows are packed once, one after the other, so that they stay in the
caches whatever the batch is. Then, for each output, its non-zeros are walked: a value is spread over a vector, multiplied with
the tile's row of its column, and added to sums that stay in registers. One load for each multiply-add, and nothing else.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from llvmlite import ir
from torch import Tensor

from sparse_models.kernels._compile import vector_bytes
from sparse_models.kernels._emit import BYTES, Emitter
from sparse_models.kernels._team import run, threads

CHUNKS = 8  # vectors in a tile: as many sums as hide the time that a multiply-add takes
TASKS_PER_THREAD = 4  # so that a thread that is held up leaves work to the others


class Structure:
    """Where the non-zeros of a matrix [rows, columns] are: pointers [rows + 1] and columns [nnz], both 32 bit."""

    def __init__(self, pointers: Tensor, indices: Tensor, columns: int) -> None:
        """Take the arrays of a CSR matrix."""
        self.pointers, self.indices, self.rows, self.columns = pointers, indices, len(pointers) - 1, columns


def define_product(structure: Structure, values: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
    """Return the matrix times x [columns, batch], plus bias [rows]: what `product` means."""
    result = x.new_zeros(structure.rows, x.shape[1]) if bias is None else bias[:, None].repeat(1, x.shape[1])
    for row in range(structure.rows):
        for place in range(int(structure.pointers[row]), int(structure.pointers[row + 1])):
            result[row] += values[place] * x[int(structure.indices[place])]
    return result


def product(structure: Structure, values: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return the matrix that holds `values` [nnz] times x [columns, batch], plus bias [rows]: [rows, batch], all contiguous."""
    batch = x.shape[1]
    result = x.new_empty(structure.rows, batch)
    if batch == 0:
        return result
    dtype = _name(x.dtype)
    if batch == 1:
        blocks, team = _blocks(structure.rows, 1)
        single: list[Tensor | int] = [
            structure.pointers,
            structure.indices,
            values,
            x,
            result,
            *of_bias(bias),
            structure.rows,
            blocks,
        ]
        run(_single(dtype), single, team)
        return result
    chunks, tiles = tiling(batch, dtype)
    blocks, team = _blocks(structure.rows, tiles)
    tile_bytes = chunks * vector_bytes()
    scratch = torch.empty(team, (structure.columns + 1) * tile_bytes + 64, dtype=torch.uint8)
    tensors = (structure.pointers, structure.indices, values, x, result, scratch)
    sizes = (structure.rows, structure.columns, batch, tiles, blocks, scratch.shape[1])
    run(_product(dtype, chunks), [*tensors, *of_bias(bias), *sizes], team)
    return result


def define_sampled(structure: Structure, grad: Tensor, x: Tensor) -> Tensor:
    """Return grad [rows, batch] times x [columns, batch] transposed, at the non-zeros [nnz]: what `sampled` means."""
    rows = torch.repeat_interleave(torch.arange(structure.rows), structure.pointers.diff())
    return (grad[rows] * x[structure.indices.long()]).sum(1)


def sampled(structure: Structure, grad: Tensor, x: Tensor) -> Tensor:
    """Return, at the non-zeros alone [nnz], grad [rows, batch] times x [columns, batch] transposed, all contiguous.

    The batch is cut into as many parts as there are tasks, whoever takes them, and the parts are added in their order: for a
    number of threads the result is always the same.
    """
    batch, nnz = x.shape[1], len(structure.indices)
    if batch == 0 or nnz == 0:
        return x.new_zeros(nnz)
    dtype = _name(x.dtype)
    if batch == 1:
        blocks, team = _blocks(structure.rows, 1)
        sums = x.new_empty(nnz)
        arrays = [structure.pointers, structure.indices, grad, x, sums]
        run(_single_sampled(dtype), [*arrays, structure.rows, blocks], team)
        return sums
    chunks, tiles = tiling(batch, dtype)
    parts = min(tiles, TASKS_PER_THREAD * threads()) if tiles > 1 else 1
    blocks, team = _blocks(structure.rows, parts)
    tile_bytes = chunks * vector_bytes()
    scratch = torch.empty(team, (structure.columns + 1) * tile_bytes + 64, dtype=torch.uint8)
    sums = x.new_empty(parts, nnz)
    tensors = (structure.pointers, structure.indices, grad, x, sums, scratch)
    sizes = (structure.rows, structure.columns, batch, tiles, blocks, scratch.shape[1], parts, nnz)
    run(_sampled(dtype, chunks), [*tensors, *sizes], team)
    return sums[0] if parts == 1 else sums.sum(0)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def tiling(batch: int, dtype: str, most: int = CHUNKS) -> tuple[int, int]:
    """Return the vectors in a tile, at most `most`, and the number of tiles: as wide as they can be, and alike."""
    lanes = vector_bytes() // BYTES[dtype]
    tiles = -(-batch // (most * lanes))
    return -(-batch // (tiles * lanes)), tiles


def _blocks(rows: int, tiles: int) -> tuple[int, int]:
    """Return into how many blocks of rows each tile's work is cut, and how many threads are worth having."""
    team = threads()
    blocks = 1 if tiles >= TASKS_PER_THREAD * team else min(rows, team // math.gcd(tiles, team))
    return blocks, min(team, tiles * blocks)


def of_bias(bias: Tensor | None) -> tuple[Tensor, int]:
    """Return where the bias is and how far it is from one row's to the next's."""
    return (_ZERO, 0) if bias is None else (bias, bias.element_size())


_ZERO = torch.zeros(1, dtype=torch.float64)


@cache
def _product(dtype: str, chunks: int) -> int:
    """Return the address of the kernel of `product` for tiles of so many vectors."""
    emit = emitter_for(dtype)
    tile_bytes = chunks * vector_bytes()
    pointers, indices, values, x, result, scratch, bias, bias_step, rows, columns, batch, tiles, blocks, scratch_bytes = (
        emit.argument(place) for place in range(14)
    )
    buffer = emit.own_part(scratch, scratch_bytes)
    spare = emit.add(buffer, emit.times(columns, tile_bytes))
    with emit.tasks(emit.times(tiles, blocks)) as task:
        tile, block = emit.divided(task, blocks)
        piece = _Piece(emit, tile, chunks, batch)
        with emit.loop(emit.constant(0), columns) as column:
            piece.copy(piece.of(x, column.place), emit.add(buffer, emit.times(column.place, tile_bytes)))
        with emit.loop(*emit.share(rows, block, blocks)) as row:
            first = emit.splat(emit.load(emit.number, emit.add(bias, emit.times(row.place, bias_step))))
            totals = row_product(emit, (pointers, indices, values), row.place, buffer, [first] * chunks)
            piece.write(totals, piece.of(result, row.place), spare)
    return emit.compiled()


@cache
def _sampled(dtype: str, chunks: int) -> int:
    """Return the address of the kernel of `sampled` for tiles of so many vectors."""
    emit = emitter_for(dtype)
    tile_bytes = chunks * vector_bytes()
    pointers, indices, grad, x, sums, scratch, rows, columns, batch, tiles, blocks, scratch_bytes, parts, nnz = (
        emit.argument(place) for place in range(14)
    )
    buffer = emit.own_part(scratch, scratch_bytes)
    spare = emit.add(buffer, emit.times(columns, tile_bytes))
    with emit.tasks(emit.times(parts, blocks)) as task:
        part, block = emit.divided(task, blocks)
        own_sums = emit.add(sums, emit.times(emit.times(part, nnz), emit.width))
        first_tile, last_tile = emit.share(tiles, part, parts)
        with emit.loop(first_tile, last_tile) as tile:
            piece = _Piece(emit, tile.place, chunks, batch)
            with emit.loop(emit.constant(0), columns) as column:
                piece.copy(piece.of(x, column.place), emit.add(buffer, emit.times(column.place, tile_bytes)))
            is_first = emit.builder.icmp_signed("==", tile.place, first_tile)
            with emit.loop(*emit.share(rows, block, blocks)) as row:
                held = piece.read(piece.of(grad, row.place), spare)
                row_sampled(emit, (pointers, indices, own_sums), row.place, buffer, held, is_first)
    return emit.compiled()


def row_product(emit: Emitter, matrix: Sequence[Any], row: Any, tile: Any, totals: list[Any]) -> list[Any]:
    """Return `totals`, a vector each, plus a row of the matrix (pointers, indices, values) times a packed tile."""
    pointers, indices, values = matrix
    tile_bytes = len(totals) * vector_bytes()
    start, end = emit.index(pointers, row), emit.index(pointers, emit.add(row, 1))
    with emit.loop(start, end, carried=totals) as place:
        value = emit.splat(emit.load(emit.number, emit.add(values, emit.times(place.place, emit.width))))
        at = emit.add(tile, emit.times(emit.index(indices, place.place), tile_bytes))
        place.carried = [
            emit.multiply_add(value, vector, total)
            for vector, total in zip(emit.vectors(at, len(totals)), place.carried, strict=True)
        ]
    return place.carried


def row_sampled(emit: Emitter, matrix: Sequence[Any], row: Any, tile: Any, held: list[Any], is_first: Any) -> None:
    """Add, at a row's non-zeros (pointers, indices, sums), the products of the row `held` with the rows of a packed tile.

    Where `is_first` holds, what was in the sums does not count.
    """
    pointers, indices, sums = matrix
    tile_bytes = len(held) * vector_bytes()
    start, end = emit.index(pointers, row), emit.index(pointers, emit.add(row, 1))
    with emit.loop(start, end) as place:
        at = emit.add(tile, emit.times(emit.index(indices, place.place), tile_bytes))
        chains = [emit.zero()] * min(2, len(held))
        for number, (vector, mine) in enumerate(zip(emit.vectors(at, len(held)), held, strict=True)):
            chains[number % 2] = emit.multiply_add(vector, mine, chains[number % 2])
        total = emit.total(chains[0] if len(chains) == 1 else emit.plus(*chains))
        add_to(emit, total, emit.add(sums, emit.times(place.place, emit.width)), is_first)


def add_to(emit: Emitter, number: Any, address: Any, is_first: Any) -> None:
    """Add a number to the one at an address, or put it there where it is the first."""
    before = emit.builder.select(is_first, emit.constant_number(0.0), emit.load(emit.number, address))
    emit.store(emit.plus(before, number), address)


@cache
def _single(dtype: str) -> int:
    """Return the address of the kernel of `product` for one column: its rows are shared out, and their sums are of scalars."""
    emit = emitter_for(dtype)
    pointers, indices, values, x, result, bias, bias_step, rows, blocks = (emit.argument(place) for place in range(9))

    def terms(place: Any, totals: list[Any]) -> list[Any]:
        return [
            emit.multiply_add(
                emit.load(emit.number, emit.add(values, emit.times(emit.add(place, number), emit.width))),
                emit.load(emit.number, emit.add(x, emit.times(emit.index(indices, emit.add(place, number)), emit.width))),
                total,
            )
            for number, total in enumerate(totals)
        ]

    with emit.tasks(blocks) as block, emit.loop(*emit.share(rows, block, blocks)) as row:
        start, end = emit.index(pointers, row.place), emit.index(pointers, emit.add(row.place, 1))
        whole = emit.add(start, emit.times(emit.builder.sdiv(emit.builder.sub(end, start), emit.constant(4)), 4))
        with emit.loop(start, whole, 4, [emit.constant_number(0.0)] * 4) as four:
            four.carried = terms(four.place, four.carried)
        left, right = emit.plus(*four.carried[:2]), emit.plus(*four.carried[2:])
        with emit.loop(whole, end, 1, [emit.plus(left, right)]) as one:
            one.carried = terms(one.place, one.carried)
        first = emit.load(emit.number, emit.add(bias, emit.times(row.place, bias_step)))
        emit.store(emit.plus(first, one.carried[0]), emit.add(result, emit.times(row.place, emit.width)))
    return emit.compiled()


@cache
def _single_sampled(dtype: str) -> int:
    """Return the address of the kernel of `sampled` for one column: its rows are shared out."""
    emit = emitter_for(dtype)
    pointers, indices, grad, x, sums, rows, blocks = (emit.argument(place) for place in range(7))
    with emit.tasks(blocks) as block, emit.loop(*emit.share(rows, block, blocks)) as row:
        mine = emit.load(emit.number, emit.add(grad, emit.times(row.place, emit.width)))
        start, end = emit.index(pointers, row.place), emit.index(pointers, emit.add(row.place, 1))
        with emit.loop(start, end) as place:
            its = emit.load(emit.number, emit.add(x, emit.times(emit.index(indices, place.place), emit.width)))
            emit.store(emit.builder.fmul(mine, its), emit.add(sums, emit.times(place.place, emit.width)))
    return emit.compiled()


def emitter_for(dtype: str) -> Emitter:
    """Return the beginning of a kernel for numbers of `dtype`."""
    return Emitter(ir.Module(), "kernel", dtype, vector_bytes() // BYTES[dtype])


class _Piece:
    """The columns of a [rows, batch] tensor that a tile covers; the last tile may stand over its edge."""

    def __init__(self, emit: Emitter, tile: Any, chunks: int, batch: Any) -> None:
        """Emit where tile number `tile`, of so many vectors, begins."""
        self.emit, self.chunks, self.batch = emit, chunks, batch
        width = chunks * emit.lanes
        self.first = emit.times(tile, width)
        self.valid = emit.least(emit.constant(width), emit.builder.sub(batch, self.first))
        self.is_whole = emit.builder.icmp_signed("==", self.valid, emit.constant(width))

    def of(self, tensor: Any, row: Any) -> Any:
        """Return the address of the tile's first number in a row."""
        place = self.emit.add(self.emit.times(row, self.batch), self.first)
        return self.emit.add(tensor, self.emit.times(place, self.emit.width))

    def copy(self, source: Any, target: Any) -> None:
        """Copy a row of the piece to a row of a whole tile, with zeros where the piece has no more."""
        emit = self.emit
        with emit.builder.if_else(self.is_whole) as (whole, partial):
            with whole:
                emit.write(emit.vectors(source, self.chunks), target)
            with partial:
                emit.write([emit.zero()] * self.chunks, target)
                self._numbers(source, target)

    def read(self, source: Any, spare: Any) -> list[Any]:
        """Return a row of the piece as vectors, by way of a spare row where it is not whole."""
        with self.emit.builder.if_then(self.emit.builder.not_(self.is_whole)):
            self.copy(source, spare)
        return self.emit.vectors(self.emit.builder.select(self.is_whole, source, spare), self.chunks)

    def write(self, vectors: list[Any], target: Any, spare: Any) -> None:
        """Write vectors to a row of the piece, by way of a spare row where it is not whole."""
        with self.emit.builder.if_else(self.is_whole) as (whole, partial):
            with whole:
                self.emit.write(vectors, target)
            with partial:
                self.emit.write(vectors, spare)
                self._numbers(spare, target)

    def _numbers(self, source: Any, target: Any) -> None:
        emit = self.emit
        with emit.loop(emit.constant(0), self.valid) as place:
            offset = emit.times(place.place, emit.width)
            emit.store(emit.load(emit.number, emit.add(source, offset)), emit.add(target, offset))
