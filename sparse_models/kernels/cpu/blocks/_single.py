"""Products of a block-sparse matrix with one column: rows of blocks are shared out, and values are read as they lie in memory.

A vector of values covers a part of a stored row, or several whole rows of a small block. No index is looked up but the block's,
and nothing is gathered: each value is read once, and what bounds these products is the memory that it comes from.
"""

from typing import Any, NamedTuple

from llvmlite import ir

from sparse_models.kernels.cpu._compile import kernel, vector_bytes
from sparse_models.kernels.cpu._emit import Emitter
from sparse_models.kernels.cpu._tile import emitter_for
from sparse_models.kernels.cpu.blocks._matrix import BlockForm, BlockMatrix
from sparse_models.kernels.cpu.blocks._registers import UNROLLED, largest_divisor, unrolled

CHAINS = 4  # sums at least, so that a multiply-add need not wait for the one before
MOST_SUMS = 16  # in registers


class Cover(NamedTuple):
    """How vectors cover a stored block of so many rows and columns: each some whole rows, or a part of one."""

    rows: int
    columns: int
    down: int  # rows that a vector covers
    right: int  # columns

    @classmethod
    def of(cls, form: BlockForm, lanes: int) -> "Cover":
        """Return the widest vectors, of at most so many numbers, that cover a block and nothing beside it."""
        rows, columns = (form.width, form.height) if form.is_transposed else (form.height, form.width)
        right = min(columns & -columns, lanes)  # the largest power of 2 that divides it
        return cls(rows, columns, min(rows & -rows, lanes // right) if right == columns else 1, right)

    @property
    def parts(self) -> tuple[int, int]:
        """How many vectors cover a block, from top to bottom and from left to right."""
        return self.rows // self.down, self.columns // self.right

    @property
    def steps(self) -> tuple[int, int]:
        """How many values after a vector the next begins, from top to bottom and from left to right."""
        return self.down * self.columns, self.right

    def kind(self, emit: Emitter) -> Any:
        """Return the type of a vector."""
        return ir.VectorType(emit.number, self.down * self.right)

    def along(self, emit: Emitter, address: Any) -> Any:
        """Return a vector of the numbers from an address on, one for each column and the same in each row."""
        one = emit.load(ir.VectorType(emit.number, self.right), address)
        return emit.chosen(one, one, list(range(self.right)) * self.down)

    def across(self, emit: Emitter, address: Any) -> Any:
        """Return a vector of the numbers from an address on, one for each row and the same in each column."""
        one = emit.load(ir.VectorType(emit.number, self.down), address)
        return emit.chosen(one, one, [row for row in range(self.down) for _ in range(self.right)])

    def row_sums(self, emit: Emitter, vector: Any) -> list[Any]:
        """Return the sum of each row that a vector covers."""
        return [emit.total(emit.some(vector, row * self.right, self.right)) for row in range(self.down)]

    def column_sums(self, emit: Emitter, vector: Any) -> list[Any]:
        """Return the sum of each column that a vector covers."""
        total = emit.some(vector, 0, self.right)
        for row in range(1, self.down):
            total = emit.plus(total, emit.some(vector, row * self.right, self.right))
        return [emit.lane(total, lane) for lane in range(self.right)]


@kernel
def single(dtype: str, form: BlockForm) -> int:
    """Return the address of the kernel of `product` for one column [columns of blocks * width]: [rows of blocks * height]."""
    emit = emitter_for(dtype, vector_bytes())
    pointers, indices, order, values, x, result, bias, bias_step, rows_of_blocks, parts = (
        emit.argument(at) for at in range(10)
    )
    matrix, cover = BlockMatrix(form, pointers, indices, order, values), Cover.of(form, emit.lanes)
    # Outputs are a stored block's rows, or its columns.
    side = 1 if form.is_transposed else 0
    folded, factor = (cover.column_sums, cover.across) if form.is_transposed else (cover.row_sums, cover.along)
    (outputs, inputs), (step, input_step) = ((pair[side], pair[1 - side]) for pair in (cover.parts, cover.steps))
    each, factor_step = (cover.right, cover.down) if form.is_transposed else (cover.down, cover.right)
    together = largest_divisor(outputs, MOST_SUMS)
    sets = max(1, CHAINS // together)
    zeros = [ir.Constant(cover.kind(emit), None)] * (together * sets)

    def add(place: Any, count: int, offset: Any, sums: list[Any]) -> list[Any]:
        for number in range(count):
            block = emit.add(matrix.block(emit, emit.add(place, number)), offset)
            column = emit.add(x, emit.times(matrix.column(emit, emit.add(place, number)), emit.width))

            def added(
                first: Any, turn: int, sums: list[Any], block: Any = block, column: Any = column, number: int = number
            ) -> None:
                at = emit.add(first, turn)
                vector = factor(emit, emit.add(column, emit.times(at, factor_step * emit.width)))
                start = emit.add(block, emit.times(at, input_step * emit.width))
                for own in range(together):
                    value = emit.load(cover.kind(emit), emit.add(start, own * step * emit.width))
                    sum_at = (number + turn) % sets * together + own
                    sums[sum_at] = emit.multiply_add(value, vector, sums[sum_at])

            sums = unrolled(emit, inputs, UNROLLED, sums, added)
        return sums

    with emit.tasks(parts) as part, emit.loop(*emit.share(rows_of_blocks, part, parts)) as row:
        start, end = matrix.row(emit, row.place)
        whole = emit.add(start, emit.builder.and_(emit.builder.sub(end, start), emit.constant(-sets)))
        with emit.loop(emit.constant(0), emit.constant(outputs), together) as some:
            offset = emit.times(some.place, step * emit.width)
            with emit.loop(start, whole, sets, zeros) as group:
                group.carried = add(group.place, sets, offset, group.carried)
            with emit.loop(whole, end, 1, group.carried) as one:
                one.carried = add(one.place, 1, offset, one.carried)
            first = emit.add(emit.times(row.place, form.height), emit.times(some.place, each))
            for own in range(together):
                total = one.carried[own]
                for other in range(1, sets):
                    total = emit.plus(total, one.carried[other * together + own])
                for number, found in enumerate(folded(emit, total)):
                    at = emit.add(first, own * each + number)
                    before = emit.load(emit.number, emit.add(bias, emit.times(at, bias_step)))
                    emit.store(emit.plus(before, found), emit.add(result, emit.times(at, emit.width)))
    return emit.compiled()


@kernel
def single_sampled(dtype: str, form: BlockForm) -> int:
    """Return the address of the kernel of `sampled` for one column, gradient and x both filling whole blocks."""
    emit = emitter_for(dtype, vector_bytes())
    pointers, indices, grad, x, sums, rows_of_blocks, parts = (emit.argument(at) for at in range(7))
    matrix, cover = BlockMatrix(form, pointers, indices, indices, sums), Cover.of(form, emit.lanes)
    (down, right), (row_step, column_step) = cover.parts, cover.steps
    with emit.tasks(parts) as part, emit.loop(*emit.share(rows_of_blocks, part, parts)) as row:
        own = emit.add(grad, emit.times(row.place, form.height * emit.width))
        with emit.loop(*matrix.row(emit, row.place)) as place:
            block = matrix.block(emit, place.place)
            column = emit.add(x, emit.times(matrix.column(emit, place.place), emit.width))
            with emit.loop(emit.constant(0), emit.constant(right)) as j:
                its = cover.along(emit, emit.add(column, emit.times(j.place, cover.right * emit.width)))
                start = emit.add(block, emit.times(j.place, column_step * emit.width))

                def multiplied(first: Any, turn: int, _: list[Any], its: Any = its, start: Any = start) -> None:
                    at = emit.add(first, turn)
                    mine = cover.across(emit, emit.add(own, emit.times(at, cover.down * emit.width)))
                    emit.store(emit.builder.fmul(its, mine), emit.add(start, emit.times(at, row_step * emit.width)))

                unrolled(emit, down, UNROLLED, [], multiplied)
    return emit.compiled()
