"""What the kernels of block-sparse matrices are made of: rows of blocks times a packed tile of the batch.

A few rows of a block times a few vectors of the tile are summed up in registers: each vector of the tile is loaded once for all
of these rows, and each value of the block once for all of these vectors.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from sparse_models.kernels.cpu._emit import Emitter
from sparse_models.kernels.cpu._tile import Sums
from sparse_models.kernels.cpu.blocks._outer import row_sampled
from sparse_models.kernels.cpu.blocks._registers import UNROLLED, largest_divisor, most_sums, unrolled
from sparse_models.kernels.structure import BlockStructure
from sparse_models.kernels.variant import Variant


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

    def products(self, emit: Emitter, rows: Sequence[Any], tile: Any, sums: Sums, row_bytes: Any = None) -> None:
        """Emit, for each row from a row of blocks to below another, the product with a tile, packed or of `row_bytes` a row."""
        height = self.form.height
        chunks = len(sums.begin(emit.constant(0)))
        row_bytes = emit.constant(chunks * emit.vector_bytes) if row_bytes is None else row_bytes
        together = largest_divisor(height, max(1, min(height, most_sums() // chunks)))
        with emit.loop(*rows) as blocks, emit.loop(emit.constant(0), emit.constant(height), together) as part:
            start, end = self.row(emit, blocks.place)
            first = emit.add(emit.times(blocks.place, height), part.place)
            own = [emit.add(first, number) for number in range(together)]
            offset = emit.times(part.place, self.form.strides[0] * emit.width)
            with emit.loop(start, end, 1, [vector for row in own for vector in sums.begin(row)]) as place:
                at = emit.add(tile, emit.times(self.column(emit, place.place), row_bytes))
                values = emit.add(self.block(emit, place.place), offset)
                place.carried = self._multiplied(emit, values, (at, row_bytes), chunks, place.carried)
            for number, row in enumerate(own):
                sums.finish(row, place.carried[number * chunks : (number + 1) * chunks])

    def _multiplied(self, emit: Emitter, values: Any, tile: tuple[Any, Any], chunks: int, sums: list[Any]) -> list[Any]:
        """Return sums of some rows plus a block's values times a tile, an address and the bytes of its rows, by columns."""
        own_tile, row_bytes = tile
        row_step, column_step = (stride * emit.width for stride in self.form.strides)

        def add(start: Any, number: int, sums: list[Any]) -> None:
            vectors = emit.vectors(emit.add(own_tile, emit.times(emit.add(start, number), row_bytes)), chunks)
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
        spare: Any,
    ) -> None:
        """Emit `row_sampled` for each row of blocks of so many rows of a packed tile `held`, and `each` for the rows.

        `spare` is memory for the rows of a block.
        """
        tile_bytes = chunks * emit.vector_bytes
        with emit.loop(emit.constant(0), emit.over(rows, self.form.height)) as blocks:
            first = emit.times(blocks.place, self.form.height)
            own = emit.add(held, emit.times(first, tile_bytes))
            row_sampled(emit, self, blocks.place, ((own, emit.constant(tile_bytes)), tile, spare), chunks, is_first)
            with emit.loop(first, emit.least(emit.add(first, self.form.height), rows)) as row:
                each(row.place, emit.vectors(emit.add(held, emit.times(row.place, tile_bytes)), chunks))
