"""The weight gradient at blocks: outer products of the gradient's rows and the input's, summed in registers sample by sample.

A vector holds some rows of a block for a few samples; what it is multiplied with is a column's numbers of these samples,
repeated for each row. So a block's sums come out in lanes that need to be added up for these few samples alone, and not across
whole vectors, which would take a fifth of the time.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

from llvmlite import ir

from sparse_models.kernels.cpu._emit import Emitter
from sparse_models.kernels.cpu._tile import add_to
from sparse_models.kernels.cpu.blocks._registers import largest_divisor, most_sums

MOST_UNROLLED = 32  # multiply-adds in a row, more in a loop


class Outer(NamedTuple):
    """How a block's sums are held: vectors of `down` rows and some samples, so many vectors times columns at a time."""

    height: int
    width: int
    lanes: int
    down: int  # rows that a vector covers, a power of 2 that divides both sides of a block
    vectors: int  # at a time, of those that cover a column
    columns: int  # at a time, a multiple of `down`

    @classmethod
    def of(cls, height: int, width: int, lanes: int) -> "Outer":
        """Return the way whose vectors cover most rows, of those with as many sums as hide what a multiply-add takes."""
        down, ways = min(height & -height, width & -width, lanes), list[Outer]()
        while down:
            ways += [
                cls(height, width, lanes, down, vectors, columns)
                for vectors in range(1, height // down + 1)
                for columns in range(down, width + 1, down)
                if height // down % vectors == 0 and width % columns == 0 and vectors * columns <= most_sums()
            ]
            down //= 2
        enough = most_sums() * 2 // 3
        return max(ways, key=lambda way: (min(way.sums, enough), way.down, way.sums / (way.vectors + way.columns)))

    @property
    def sums(self) -> int:
        """How many sums there are at a time."""
        return self.vectors * self.columns

    @property
    def samples(self) -> int:
        """How many samples a vector holds."""
        return self.lanes // self.down

    @property
    def parts(self) -> int:
        """How many vectors cover a column of a block."""
        return self.height // self.down

    def regroup(self, emit: Emitter, held: Sequence[Any], spare: Any, chunks: int, totals: Sequence[Any] | None) -> None:
        """Copy a block's rows of a tile, at an address and so many bytes apart, to vectors that cover some of its rows each.

        `totals` is where each row's sum is added to what is there, or put where it is the first.
        """
        first, row_bytes = held
        with emit.loop(emit.constant(0), emit.constant(self.parts)) as part:
            begin = emit.times(part.place, self.down)
            rows = emit.add(first, emit.times(begin, row_bytes))
            own = emit.add(spare, emit.times(part.place, emit.vector_bytes))
            with emit.loop(emit.constant(0), emit.constant(chunks), 1, [emit.zero()]) as chunk:
                source = emit.add(rows, emit.times(chunk.place, emit.vector_bytes))
                square = [emit.load(emit.vector, emit.add(source, emit.times(row_bytes, row))) for row in range(self.down)]
                step = self.parts * emit.vector_bytes
                target = emit.add(own, emit.times(chunk.place, self.down * step))
                for number, vector in enumerate(emit.transposed(square)):
                    emit.store(vector, emit.add(target, number * step))
                    chunk.carried = [emit.plus(chunk.carried[0], vector)]
            if totals:
                address, is_first = totals
                [total] = self._folded(emit, chunk.carried)
                add_to(emit, total, emit.add(address, emit.times(begin, emit.width)), is_first)

    def summed(self, emit: Emitter, rows: Any, tile: Any, chunks: int) -> list[list[Any]]:
        """Return for each of some columns of a packed tile the sums of its products with the vectors at `rows`."""
        steps, tile_bytes = chunks * self.down, chunks * emit.vector_bytes
        together = largest_divisor(steps, max(1, MOST_UNROLLED // self.sums))
        row_step, column_step = self.parts * emit.vector_bytes, self.samples * emit.width
        with emit.loop(emit.constant(0), emit.constant(steps), together, [emit.zero()] * self.sums) as step:
            sums = step.carried
            for number in range(together):
                at = emit.add(rows, emit.times(step.place, row_step), number * row_step)
                vectors = emit.vectors(at, self.vectors)
                at = emit.add(tile, emit.times(step.place, column_step), number * column_step)
                for column in range(self.columns):
                    numbers = self._repeated(emit, emit.add(at, column * tile_bytes))
                    own = slice(column * self.vectors, (column + 1) * self.vectors)
                    sums[own] = [
                        emit.multiply_add(vector, numbers, one) for vector, one in zip(vectors, sums[own], strict=True)
                    ]
            step.carried = sums
        return [step.carried[number :: self.vectors] for number in range(self.vectors)]

    def _repeated(self, emit: Emitter, address: Any) -> Any:
        if self.samples == 1:
            return emit.splat(emit.load(emit.number, address))
        few = emit.load(ir.VectorType(emit.number, self.samples), address)
        return emit.chosen(few, few, list(range(self.samples)) * self.down)

    def add(self, emit: Emitter, sums: Sequence[Sequence[Any]], address: Any, is_first: Any) -> None:
        """Add sums of some vectors and columns to a block's values from an address on."""
        rows = list[list[Any]]()
        for own in sums:
            squares = [emit.transposed(own[first : first + self.down]) for first in range(0, self.columns, self.down)]
            rows += [[square[row] for square in squares] for row in range(self.down)]
        # What is covered whole lies in one run, else each row by itself.
        for row, run in enumerate([list(chain.from_iterable(rows))] if self.columns == self.width else rows):
            at = emit.add(address, row * self.width * emit.width)
            for total in self._folded(emit, run):
                add_to(emit, total, at, is_first)
                at = emit.add(at, total.type.count * emit.width)

    def _folded(self, emit: Emitter, vectors: Sequence[Any]) -> list[Any]:
        """Return vectors with the numbers of each row's and column's samples, which lie side by side, added up."""
        samples = self.samples
        if samples == self.lanes:
            most = min(self.lanes, len(vectors) & -len(vectors))
            return [emit.totals(vectors[first : first + most]) for first in range(0, len(vectors), most)]
        while samples > 1:
            pairs = (
                [*zip(vectors[::2], vectors[1::2], strict=True)] if len(vectors) % 2 == 0 else [(one, None) for one in vectors]
            )
            vectors, samples = [self._halved(emit, *pair) for pair in pairs], samples // 2
        return list(vectors)

    @staticmethod
    def _halved(emit: Emitter, left: Any, right: Any) -> Any:
        numbers = left.type.count * (1 if right is None else 2)
        even, odd = (emit.chosen(left, left if right is None else right, range(first, numbers, 2)) for first in (0, 1))
        return emit.plus(even, odd)


def row_sampled(
    emit: Emitter, matrix: Any, row: Any, tiles: Sequence[Any], chunks: int, is_first: Any, totals: Any = None
) -> None:
    """Add, at the blocks of a row of blocks, the products of its rows with a packed tile's to the values.

    The tiles are these rows, as an address and the bytes from one to the next, all columns, and memory for as much as the rows.
    `totals` is where the rows' own sums are added. Where `is_first` holds, what was there does not count.
    """
    held, tile, spare = tiles
    height, width = matrix.form.unit
    outer, tile_bytes = Outer.of(height, width, emit.lanes), chunks * emit.vector_bytes
    outer.regroup(emit, held, spare, chunks, totals and (totals, is_first))
    with emit.loop(*matrix.row(emit, row)) as place:
        own_tile = emit.add(tile, emit.times(matrix.column(emit, place.place), tile_bytes))
        values = matrix.block(emit, place.place)
        with (
            emit.loop(emit.constant(0), emit.constant(outer.parts), outer.vectors) as i,
            emit.loop(emit.constant(0), emit.constant(width), outer.columns) as j,
        ):
            rows = emit.add(spare, emit.times(i.place, emit.vector_bytes))
            sums = outer.summed(emit, rows, emit.add(own_tile, emit.times(j.place, tile_bytes)), chunks)
            first = emit.add(emit.times(i.place, outer.down * width), j.place)
            outer.add(emit, sums, emit.add(values, emit.times(first, emit.width)), is_first)
