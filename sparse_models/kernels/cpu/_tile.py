"""What the kernels are made of: a tile of the batch, and a row of a sparse matrix times it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from llvmlite import ir
from torch import Tensor

from sparse_models.kernels.cpu._arithmetic import BYTES
from sparse_models.kernels.cpu._compile import vector_bytes
from sparse_models.kernels.cpu._emit import Emitter
from sparse_models.kernels.cpu._team import threads
from sparse_models.kernels.structure import Structure
from sparse_models.kernels.variant import Variant

CHUNKS = SUMS = 8  # vectors in a tile: as many sums as hide the time that a multiply-add takes
TILE_BYTES = 3 * 2**18  # of the second cache, of which most have 1 MiB or more; the rest is for what passes through
TOGETHER = 4  # non-zeros of a row at a time, unless another variant is chosen


def tiling(batch: int, dtype: str, most: int, vector_bytes: int) -> tuple[int, int]:
    """Return the vectors in a tile, at most `most`, and the number of tiles: as wide as they can be, and alike."""
    lanes = vector_bytes // BYTES[dtype]
    tiles = -(-batch // (most * lanes))
    return -(-batch // (tiles * lanes)), tiles


def default(features: int) -> Variant:
    """Return the variant that suits most machines for tiles of so many features.

    Vectors are as many as the second cache holds, but not fewer than half of the most that there can be: fewer multiply-adds
    share then what a non-zero costs beside them.
    """
    most = min(CHUNKS, max(CHUNKS // 2, TILE_BYTES // (features * vector_bytes())))
    return Variant(most, TOGETHER, vector_bytes(), threads())


def of_bias(bias: Tensor | None) -> tuple[Tensor, int]:
    """Return where the bias is and how far it is from one row's to the next's."""
    return (_ZERO, 0) if bias is None else (bias, bias.element_size())


_ZERO = torch.zeros(1, dtype=torch.float64)


def emitter_for(dtype: str, vector_bytes: int) -> Emitter:
    """Return the beginning of a kernel for numbers of `dtype`, and for vectors of so many bytes."""
    return Emitter(ir.Module(), "kernel", dtype, vector_bytes // BYTES[dtype])


class CsrForm(NamedTuple):
    """What a kernel for CSR matrices is compiled for: the bytes of an index, and how many non-zeros it takes at a time."""

    index_bytes: int
    together: int

    @classmethod
    def of(cls, structure: Structure, variant: Variant) -> "CsrForm":
        """Return the form of a structure, as a variant has it."""
        return cls(structure.indices.element_size(), variant.together)

    @property
    def unit(self) -> tuple[int, int]:
        """The rows and columns of what is stored as one."""
        return 1, 1

    def matrix(self, addresses: Sequence[Any], values: Any) -> "Matrix":
        """Return the matrix whose structure is at some addresses, as `Structure.arrays` has them."""
        pointers, indices, _ = addresses
        return Matrix(self, pointers, indices, values)


class Matrix(NamedTuple):
    """The addresses of a sparse matrix: its pointers, its indices, and what belongs to each non-zero."""

    form: CsrForm
    pointers: Any
    indices: Any
    values: Any

    def row(self, emit: Emitter, row: Any) -> tuple[Any, Any, Any]:
        """Return where a row's non-zeros start, where those end that fill whole groups, and where all end."""
        group = self.form.together
        start, end = emit.index(self.pointers, row), emit.index(self.pointers, emit.add(row, 1))
        count = emit.builder.and_(emit.builder.sub(end, start), emit.constant(-group))
        return start, emit.add(start, count), end

    def tile_rows(self, emit: Emitter, place: Any, count: int, tile: Any, tile_bytes: int) -> list[Any]:
        """Return the addresses of a packed tile's rows that `count` non-zeros from a place on stand for."""
        indices = emit.indices(self.indices, place, count, self.form.index_bytes)
        return [emit.add(tile, emit.times(index, tile_bytes)) for index in indices]

    def value(self, emit: Emitter, place: Any) -> Any:
        """Return the address of what belongs to a non-zero."""
        return emit.add(self.values, emit.times(place, emit.width))

    def products(
        self,
        emit: Emitter,
        rows: Sequence[Any],
        tile: Any,
        begin: Callable[[Any], list[Any]],
        finish: Callable[[Any, list[Any]], None],
    ) -> None:
        """Emit, for each row from one to below another, its product with a packed tile.

        `begin` says for a row what its vectors are before, and `finish` is given a row and what they are then.
        """
        with emit.loop(*rows) as row:
            finish(row.place, row_product(emit, self, row.place, tile, begin(row.place)))

    def sampled(
        self,
        emit: Emitter,
        rows: Any,
        held: Any,
        tile: Any,
        chunks: int,
        is_first: Any,
        each: Callable[[Any, list[Any]], None],
    ) -> None:
        """Emit `row_sampled` for each of so many rows of a packed tile `held`, and `each` with its vectors."""
        with emit.loop(emit.constant(0), rows) as row:
            vectors = emit.vectors(emit.add(held, emit.times(row.place, chunks * emit.vector_bytes)), chunks)
            row_sampled(emit, self, row.place, tile, vectors, is_first)
            each(row.place, vectors)


def row_product(emit: Emitter, matrix: Matrix, row: Any, tile: Any, totals: list[Any]) -> list[Any]:
    """Return `totals`, a vector each, plus a row of the matrix times a packed tile.

    A narrow tile has several sums for each of its vectors, so that a multiply-add need not wait for the one before.
    """
    chunks = len(totals)
    together = matrix.form.together
    sets = min(together, max(1, SUMS // chunks))
    start, whole, end = matrix.row(emit, row)

    def add(place: Any, count: int, sums: list[Any]) -> list[Any]:
        for number, at in enumerate(matrix.tile_rows(emit, place, count, tile, chunks * emit.vector_bytes)):
            value = emit.splat(emit.load(emit.number, matrix.value(emit, emit.add(place, number))))
            own = number * chunks % len(sums)
            sums[own : own + chunks] = [
                emit.multiply_add(value, vector, total)
                for vector, total in zip(emit.vectors(at, chunks), sums[own : own + chunks], strict=True)
            ]
        return sums

    with emit.loop(start, whole, together, [*totals, *[emit.zero()] * (chunks * (sets - 1))]) as group:
        group.carried = add(group.place, together, group.carried[:])
    sums = group.carried
    while len(sums) > chunks:
        half = len(sums) // 2
        sums = [emit.plus(*pair) for pair in zip(sums[:half], sums[half:], strict=True)]
    with emit.loop(whole, end, 1, sums) as one:
        one.carried = add(one.place, 1, one.carried[:])
    return one.carried


def row_sampled(emit: Emitter, matrix: Matrix, row: Any, tile: Any, held: list[Any], is_first: Any) -> None:
    """Add, at a row's non-zeros, the products of the row `held` with the rows of a packed tile to the matrix's values.

    Where `is_first` holds, what was in the values does not count.
    """
    start, whole, end = matrix.row(emit, row)

    def products(place: Any, count: int) -> list[Any]:
        rows = matrix.tile_rows(emit, place, count, tile, len(held) * emit.vector_bytes)
        sums = [emit.zero()] * count
        for number, at in enumerate(rows):
            for vector, mine in zip(emit.vectors(at, len(held)), held, strict=True):
                sums[number] = emit.multiply_add(vector, mine, sums[number])
        return sums

    together = matrix.form.together
    summed = min(together, emit.lanes)
    with emit.loop(start, whole, together) as group:
        sums = products(group.place, together)
        for first in range(0, together, summed):
            place = emit.add(group.place, first)
            add_to(emit, emit.totals(sums[first : first + summed]), matrix.value(emit, place), is_first)
    with emit.loop(whole, end) as one:
        add_to(emit, emit.total(*products(one.place, 1)), matrix.value(emit, one.place), is_first)


def add_to(emit: Emitter, number: Any, address: Any, is_first: Any) -> None:
    """Add a number, or a vector, to what is at an address, or put it there where it is the first."""
    before = emit.builder.select(is_first, ir.Constant(number.type, None), emit.load(number.type, address))
    emit.store(emit.plus(before, number), address)


class Piece:
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

    def pack(self, tensor: Any, first: Any, last: Any, buffer: Any, of: int = 1) -> None:
        """Copy the piece of rows of a tensor, from one to below another, to rows of a whole tile.

        There are zeros where the piece has no more, and in rows after them that make their number a multiple of `of`.
        """
        emit = self.emit
        tile_bytes = self.chunks * emit.lanes * emit.width
        with emit.loop(first, last) as row:
            at = emit.add(buffer, emit.times(emit.builder.sub(row.place, first), tile_bytes))
            emit.write(self.read(self.of(tensor, row.place)), at)
        if of > 1:
            count = emit.builder.sub(last, first)
            emit.clear(buffer, count, emit.padded(count, of), self.chunks)

    def read(self, source: Any) -> list[Any]:
        """Return a row of the piece as vectors, with zeros where it has no more."""
        builder, found = self.emit.builder, list[tuple[list[Any], Any]]()
        with builder.if_else(self.is_whole) as (whole, partial):
            with whole:
                found.append((self.emit.vectors(source, self.chunks), builder.block))
            with partial:
                found.append((self.emit.first_numbers(source, self.chunks, self.valid), builder.block))
        vectors = [builder.phi(self.emit.vector) for _ in range(self.chunks)]
        for values, block in found:
            for vector, value in zip(vectors, values, strict=True):
                vector.add_incoming(value, block)
        return vectors

    def write(self, vectors: list[Any], target: Any) -> None:
        """Write vectors to a row of the piece."""
        with self.emit.builder.if_else(self.is_whole) as (whole, partial):
            with whole:
                self.emit.write(vectors, target)
            with partial:
                self.emit.write_first_numbers(vectors, target, self.valid)
