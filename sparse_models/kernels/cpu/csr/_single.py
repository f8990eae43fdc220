"""Products of a CSR matrix with one column: rows are shared out among the threads, and sums are over a row."""

from llvmlite import ir

from sparse_models.kernels.cpu._compile import kernel, vector_bytes
from sparse_models.kernels.cpu._emit import SMALL_BYTES
from sparse_models.kernels.cpu._tile import emitter_for
from sparse_models.kernels.cpu.csr._form import CsrForm


@kernel
def single(dtype: str, index_bytes: int) -> int:
    """Return the address of the kernel of `product` for one column: its rows are shared out, and sums are over a row."""
    emit = emitter_for(dtype, vector_bytes())
    pointers, indices, values, x, result, bias, bias_step, rows, blocks = (emit.argument(place) for place in range(9))
    lanes = SMALL_BYTES // emit.width
    matrix = CsrForm(index_bytes, 2 * lanes).matrix((pointers, indices, values, 0, 1, 1), values)
    small = ir.VectorType(emit.number, lanes)
    with emit.tasks(blocks) as block, emit.loop(*emit.share(rows, block, blocks)) as row:
        start, whole, end = matrix.row(emit, row.place)
        with emit.loop(start, whole, 2 * lanes, [ir.Constant(small, None)] * 2) as group:
            places = emit.indices(indices, group.place, 2 * lanes, index_bytes)
            for number in range(2):
                own = emit.load(small, matrix.value(emit, emit.add(group.place, number * lanes)))
                its = emit.gathered(x, places[number * lanes : (number + 1) * lanes])
                group.carried[number] = emit.multiply_add(own, its, group.carried[number])
        with emit.loop(whole, end, 1, [emit.total(emit.plus(*group.carried))]) as one:
            own = emit.load(emit.number, matrix.value(emit, one.place))
            its = emit.load(emit.number, emit.add(x, emit.times(emit.index(indices, one.place, index_bytes), emit.width)))
            one.carried = [emit.multiply_add(own, its, *one.carried)]
        first = emit.load(emit.number, emit.add(bias, emit.times(row.place, bias_step)))
        emit.store(emit.plus(first, *one.carried), emit.add(result, emit.times(row.place, emit.width)))
    return emit.compiled()


@kernel
def single_sampled(dtype: str, index_bytes: int) -> int:
    """Return the address of the kernel of `sampled` for one column: its rows are shared out."""
    emit = emitter_for(dtype, vector_bytes())
    pointers, indices, grad, x, sums, rows, blocks = (emit.argument(place) for place in range(7))
    lanes = SMALL_BYTES // emit.width
    matrix = CsrForm(index_bytes, lanes).matrix((pointers, indices, sums, 0, 1, 1), sums)
    with emit.tasks(blocks) as block, emit.loop(*emit.share(rows, block, blocks)) as row:
        mine = emit.load(emit.number, emit.add(grad, emit.times(row.place, emit.width)))
        start, whole, end = matrix.row(emit, row.place)
        with emit.loop(start, whole, lanes) as group:
            its = emit.gathered(x, emit.indices(indices, group.place, lanes, index_bytes))
            emit.store(emit.builder.fmul(its, emit.splat(mine, lanes)), matrix.value(emit, group.place))
        with emit.loop(whole, end) as one:
            its = emit.load(emit.number, emit.add(x, emit.times(emit.index(indices, one.place, index_bytes), emit.width)))
            emit.store(emit.builder.fmul(mine, its), matrix.value(emit, one.place))
    return emit.compiled()
