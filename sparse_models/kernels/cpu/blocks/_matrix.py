"""What the kernels of block-sparse matrices are made of: rows of blocks times a packed tile of the batch.

A few rows of a block times a few vectors of the tile are summed up in registers: each vector of the tile is loaded once for all
of these rows, and each value of the block once for all of these vectors.
"""

import math
import platform
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from sparse_models.kernels.cpu._compile import vector_bytes
from sparse_models.kernels.cpu._emit import Emitter
from sparse_models.kernels.cpu._tile import Sums, add_to
from sparse_models.kernels.structure import BlockStructure
from sparse_models.kernels.variant import Variant

# Columns of a block, and vectors of a tile, that are no loop: of more, LLVM loads all first, and has no registers for them.
UNROLLED = 4


def registers() -> int:
    """Return how many registers for vectors the processor has."""
    return 32 if vector_bytes() == 64 or platform.machine() in ("aarch64", "arm64") else 16


def most_sums() -> int:
    """Return how many sums are kept in registers: three quarters, the rest is for what is multiplied."""
    return registers() * 3 // 4


def largest_divisor(number: int, most: int) -> int:
    """Return the largest divisor of a number that is at most so many."""
    return max(divisor for divisor in range(1, most + 1) if number % divisor == 0)


def unrolled(emit: Emitter, count: int, most: int, carried: list[Any], add: Callable[[Any, int, list[Any]], None]) -> list[Any]:
    """Emit `add` for each integer below a number, at most so many in a row and more in a loop; return what became of `carried`.

    It is given where a turn of the loop starts, which of its integers it is, so that addresses differ by constants, and the
    list, which it changes.
    """
    # Twice as many still are none: a loop of two turns costs more.
    step, carried = count if count <= 2 * most else largest_divisor(count, most), list(carried)
    if step == count:
        for number in range(count):
            add(emit.constant(0), number, carried)
        return carried
    with emit.loop(emit.constant(0), emit.constant(count), step, carried) as loop:
        for number in range(step):
            add(loop.place, number, loop.carried)
    return loop.carried


class BlockForm(NamedTuple):
    """What a kernel for block-sparse matrices is compiled for: a block's size, and the bytes of an index."""

    height: int
    width: int
    index_bytes: int
    is_transposed: bool

    @classmethod
    def of(cls, structure: BlockStructure) -> "BlockForm":
        """Return the form of a structure."""
        return cls(structure.height, structure.width, structure.indices.element_size(), structure.order is not None)

    @property
    def unit(self) -> tuple[int, int]:
        """The rows and columns of what is stored as one."""
        return self.height, self.width

    @property
    def addresses(self) -> int:
        """How many arguments of a kernel tell a structure."""
        return 3

    def arguments(self, structure: BlockStructure, chunks: int, variant: Variant) -> Sequence[Tensor | int]:  # noqa: ARG002
        """Return a structure as a kernel takes it."""
        return structure.arrays

    def matrix(self, addresses: Sequence[Any], values: Any) -> "BlockMatrix":
        """Return the matrix whose structure is at some addresses, as `arguments` has them."""
        pointers, indices, order = addresses
        return BlockMatrix(self, pointers, indices, order, values)

    @property
    def strides(self) -> tuple[int, int]:
        """How far apart, in values, a block's rows and its columns are."""
        return (1, self.height) if self.is_transposed else (self.width, 1)


class BlockMatrix(NamedTuple):
    """The addresses of a block-sparse matrix: its pointers, its indices, its order, and what belongs to its values."""

    form: BlockForm
    pointers: Any
    indices: Any
    order: Any
    values: Any

    def row(self, emit: Emitter, row: Any) -> tuple[Any, Any]:
        """Return where the blocks of a row of blocks start, and where they end."""
        return emit.index(self.pointers, row), emit.index(self.pointers, emit.add(row, 1))

    def column(self, emit: Emitter, place: Any) -> Any:
        """Return the first column of a block."""
        return emit.times(emit.index(self.indices, place, self.form.index_bytes), self.form.width)

    def block(self, emit: Emitter, place: Any) -> Any:
        """Return the address of a block's values."""
        number = emit.index(self.order, place) if self.form.is_transposed else place
        return emit.add(self.values, emit.times(number, self.form.height * self.form.width * emit.width))

    def products(self, emit: Emitter, rows: Sequence[Any], tile: Any, sums: Sums) -> None:
        """Emit, for each row from a row of blocks to below another, the product with a packed tile."""
        height = self.form.height
        chunks = len(sums.begin(emit.constant(0)))
        together = largest_divisor(height, max(1, min(height, most_sums() // chunks)))
        with emit.loop(*rows) as blocks, emit.loop(emit.constant(0), emit.constant(height), together) as part:
            start, end = self.row(emit, blocks.place)
            first = emit.add(emit.times(blocks.place, height), part.place)
            own = [emit.add(first, number) for number in range(together)]
            offset = emit.times(part.place, self.form.strides[0] * emit.width)
            with emit.loop(start, end, 1, [vector for row in own for vector in sums.begin(row)]) as place:
                at = emit.add(tile, emit.times(self.column(emit, place.place), chunks * emit.vector_bytes))
                values = emit.add(self.block(emit, place.place), offset)
                place.carried = self._multiplied(emit, values, at, chunks, place.carried)
            for number, row in enumerate(own):
                sums.finish(row, place.carried[number * chunks : (number + 1) * chunks])

    def _multiplied(self, emit: Emitter, values: Any, tile: Any, chunks: int, sums: list[Any]) -> list[Any]:
        """Return sums of some rows plus a block's values times a tile, column by column."""
        row_step, column_step = (stride * emit.width for stride in self.form.strides)

        def add(start: Any, number: int, sums: list[Any]) -> None:
            tile_bytes = chunks * emit.vector_bytes
            vectors = emit.vectors(emit.add(tile, emit.times(start, tile_bytes), number * tile_bytes), chunks)
            for row in range(len(sums) // chunks):
                address = emit.add(values, emit.times(start, column_step), number * column_step + row * row_step)
                value = emit.splat(emit.load(emit.number, address))
                own = slice(row * chunks, (row + 1) * chunks)
                sums[own] = [emit.multiply_add(value, *pair) for pair in zip(vectors, sums[own], strict=True)]

        return unrolled(emit, self.form.width, UNROLLED, sums, add)

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
        """Emit `row_sampled` for each row of blocks of so many rows of a packed tile `held`, and `each` for the rows."""
        tile_bytes = chunks * emit.vector_bytes
        with emit.loop(emit.constant(0), emit.over(rows, self.form.height)) as blocks:
            first = emit.times(blocks.place, self.form.height)
            own = emit.add(held, emit.times(first, tile_bytes))
            self.row_sampled(emit, blocks.place, own, tile, chunks, is_first)
            with emit.loop(first, emit.least(emit.add(first, self.form.height), rows)) as row:
                each(row.place, emit.vectors(emit.add(held, emit.times(row.place, tile_bytes)), chunks))

    def row_sampled(self, emit: Emitter, row: Any, held: Any, tile: Any, chunks: int, is_first: Any) -> None:
        """Add, at the blocks of a row of blocks, the products of packed rows `held` with a packed tile's to the values.

        Where `is_first` holds, what was in the values does not count.
        """
        height, width = self.form.height, self.form.width
        most = 4 if registers() == 32 else 2
        together = (math.gcd(height, most), math.gcd(width, 4))
        tile_bytes = chunks * emit.vector_bytes
        with emit.loop(*self.row(emit, row)) as place:
            own_tile = emit.add(tile, emit.times(self.column(emit, place.place), tile_bytes))
            values = self.block(emit, place.place)
            with (
                emit.loop(emit.constant(0), emit.constant(height), together[0]) as i,
                emit.loop(emit.constant(0), emit.constant(width), together[1]) as j,
            ):
                sums = self._sums(
                    emit,
                    emit.add(held, emit.times(i.place, tile_bytes)),
                    emit.add(own_tile, emit.times(j.place, tile_bytes)),
                    together,
                    chunks,
                )
                address = emit.add(values, emit.times(emit.add(emit.times(i.place, width), j.place), emit.width))
                self._add(emit, sums, together, address, is_first)

    @staticmethod
    def _sums(emit: Emitter, left: Any, right: Any, together: tuple[int, int], chunks: int) -> list[Any]:
        """Return the products, place by place, of each of some rows of a packed tile with each of some of another, added up."""
        tile_bytes = chunks * emit.vector_bytes

        def added(sums: list[Any], offset: Any, count: int) -> list[Any]:
            for number in range(count):
                here = emit.add(offset, number * emit.vector_bytes)
                rows, columns = (
                    [emit.load(emit.vector, emit.add(base, here, one * tile_bytes)) for one in range(size)]
                    for base, size in zip((left, right), together, strict=True)
                )
                sums = [
                    emit.multiply_add(row, column, sums[i * together[1] + j])
                    for i, row in enumerate(rows)
                    for j, column in enumerate(columns)
                ]
            return sums

        sums = [emit.zero()] * math.prod(together)
        if chunks <= UNROLLED:
            return added(sums, emit.constant(0), chunks)
        step, rest = UNROLLED // 2, chunks % (UNROLLED // 2)
        whole = emit.constant((chunks - rest) * emit.vector_bytes)
        with emit.loop(emit.constant(0), whole, step * emit.vector_bytes, sums) as part:
            part.carried = added(part.carried, part.place, step)
        return added(part.carried, whole, rest)

    def _add(self, emit: Emitter, sums: list[Any], together: tuple[int, int], address: Any, is_first: Any) -> None:
        """Add the totals of vectors, row by row, to the values from an address on."""
        at_once = min(emit.lanes, len(sums))
        width = self.form.width
        whole = together[1] == width  # rows of a block that are covered whole follow one another
        run = at_once if whole else min(at_once, together[1])
        for first in range(0, len(sums), at_once):
            totals = emit.totals(sums[first : first + at_once])
            for start in range(0, at_once, run):
                row, column = divmod(first + start, together[1])
                part = totals if run == at_once else emit.some(totals, start, run)
                add_to(emit, part, emit.add(address, (row * width + column) * emit.width), is_first)
