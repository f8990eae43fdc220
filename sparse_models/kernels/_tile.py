"""What the kernels are made of: a tile of the batch, and a row of a sparse matrix times it."""

from collections.abc import Sequence
from typing import Any

import torch
from llvmlite import ir
from torch import Tensor

from sparse_models.kernels._compile import vector_bytes
from sparse_models.kernels._emit import BYTES, Emitter

CHUNKS = 8  # vectors in a tile: as many sums as hide the time that a multiply-add takes


def tiling(batch: int, dtype: str, most: int = CHUNKS) -> tuple[int, int]:
    """Return the vectors in a tile, at most `most`, and the number of tiles: as wide as they can be, and alike."""
    lanes = vector_bytes() // BYTES[dtype]
    tiles = -(-batch // (most * lanes))
    return -(-batch // (tiles * lanes)), tiles


def of_bias(bias: Tensor | None) -> tuple[Tensor, int]:
    """Return where the bias is and how far it is from one row's to the next's."""
    return (_ZERO, 0) if bias is None else (bias, bias.element_size())


_ZERO = torch.zeros(1, dtype=torch.float64)


def emitter_for(dtype: str) -> Emitter:
    """Return the beginning of a kernel for numbers of `dtype`."""
    return Emitter(ir.Module(), "kernel", dtype, vector_bytes() // BYTES[dtype])


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

    def copy(self, source: Any, target: Any) -> None:
        """Copy a row of the piece to a row of a whole tile, with zeros where the piece has no more."""
        emit = self.emit
        with emit.builder.if_else(self.is_whole) as (whole, partial):
            with whole:
                emit.write(emit.vectors(source, self.chunks), target)
            with partial:
                emit.write([emit.zero()] * self.chunks, target)
                self._numbers(source, target)

    def pack(self, tensor: Any, rows: Any, buffer: Any) -> None:
        """Copy the piece of all rows of a tensor, one after the other, to a buffer."""
        emit = self.emit
        with emit.loop(emit.constant(0), rows) as row:
            self.copy(
                self.of(tensor, row.place), emit.add(buffer, emit.times(row.place, self.chunks * emit.lanes * emit.width))
            )

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
