"""What the kernels are made of: a tile of the batch, and what becomes of its rows."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from llvmlite import ir
from torch import Tensor

from sparse_models.kernels.cpu._arithmetic import BYTES
from sparse_models.kernels.cpu._emit import Emitter

SUMS = 8  # as many as hide the time that a multiply-add takes
TILE_BYTES = 3 * 2**18  # of the second cache, of which most have 1 MiB or more; the rest is for what passes through
TASKS_PER_THREAD = 4  # so that a thread that is held up leaves work to the others
TOGETHER = 4  # non-zeros of a row at a time, unless another variant is chosen


def tiling(batch: int, dtype: str, most: int, vector_bytes: int) -> tuple[int, int]:
    """Return the vectors in a tile, at most `most`, and the number of tiles: as wide as they can be, and alike."""
    lanes = vector_bytes // BYTES[dtype]
    tiles = -(-batch // (most * lanes))
    return -(-batch // (tiles * lanes)), tiles


def tile_and_block(emit: Emitter, task: Any, tiles: Any, blocks: Any) -> tuple[Any, Any]:
    """Return of which tile and block of rows a task is: a thread has few rows where there are few tiles, and else few tiles.

    What two cores write side by side at a time comes to be fetched by one from the other.
    """
    is_few = emit.builder.icmp_signed("<", tiles, emit.times(emit.team(), TASKS_PER_THREAD))
    (block, tile), many = emit.divided(task, tiles), emit.divided(task, blocks)
    return emit.builder.select(is_few, tile, many[0]), emit.builder.select(is_few, block, many[1])


def of_bias(bias: Tensor | None) -> tuple[Tensor, int]:
    """Return where the bias is and how far it is from one row's to the next's."""
    return (_ZERO, 0) if bias is None else (bias, bias.element_size())


_ZERO = torch.zeros(1, dtype=torch.float64, device="cpu")


def emitter_for(dtype: str, vector_bytes: int) -> Emitter:
    """Return the beginning of a kernel for numbers of `dtype`, and for vectors of so many bytes."""
    return Emitter(ir.Module(), "kernel", dtype, vector_bytes // BYTES[dtype])


class Sums(NamedTuple):
    """What the vectors of a product's rows are to begin with, what is made of them, and where they are kept in between."""

    begin: Callable[[Any], list[Any]]  # given the row
    finish: Callable[[Any, list[Any]], None]
    kept: Any  # a packed tile of the rows
    chunks: int  # vectors of a row


def add_to(emit: Emitter, number: Any, address: Any, is_first: Any) -> None:
    """Add a number, or a vector, to what is at an address, or put it there where it is the first."""
    before = emit.builder.select(is_first, ir.Constant(number.type, None), emit.load(number.type, address))
    emit.store(emit.plus(before, number), address)


def few_splats(emit: Emitter, address: Any, few: int) -> list[Any]:
    """Return so few numbers from an address on, each spread over a vector of a multiple of them, by one load.

    Where a processor loads one vector a cycle, a load for each number is one that a multiply-add waits for. What is loaded is
    frozen, or LLVM loads each number by itself again.
    """
    lanes, numbers = range(emit.lanes), emit.load(ir.VectorType(emit.number, few), address)
    loaded = emit.chosen(numbers, numbers, [lane % few for lane in lanes])
    frozen = ir.instructions.Instruction(emit.builder.block, loaded.type, "freeze", [loaded])
    emit.builder._insert(frozen)  # noqa: SLF001  # llvmlite has no name for it
    return [emit.chosen(frozen, frozen, [lane - lane % few + number for lane in lanes]) for number in range(few)]


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
        return self.emit.either(
            self.is_whole,
            lambda: self.emit.vectors(source, self.chunks),
            lambda: self.emit.first_numbers(source, self.chunks, self.valid),
        )

    def write(self, vectors: list[Any], target: Any) -> None:
        """Write vectors to a row of the piece."""
        with self.emit.builder.if_else(self.is_whole) as (whole, partial):
            with whole:
                self.emit.write(vectors, target)
            with partial:
                self.emit.write_first_numbers(vectors, target, self.valid)
