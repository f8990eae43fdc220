"""Which of a layer's weights survive: those of highest magnitude, of equal ones the first."""

from collections.abc import Sequence

from llvmlite import ir
from torch import Tensor

from sparse_models.kernels.cpu._arithmetic import INTEGER, name_of
from sparse_models.kernels.cpu._compile import kernel, vector_bytes
from sparse_models.kernels.cpu._team import run, threads
from sparse_models.kernels.cpu._tile import emitter_for
from sparse_models.kernels.cpu.moves._keys import Keys, put
from sparse_models.kernels.cpu.moves._table import COLUMNS, WEIGHT_NAN, Entries, Work


def drop(works: Sequence[Work], rows: Tensor) -> None:
    """Mark which of each layer's non-zeros survive: those of highest magnitude."""
    run(_drop(name_of(works[0].storage.values.dtype)), (rows, len(works)), min(threads(), len(works)))


@kernel
def _drop(dtype: str) -> int:
    """Return the address of the kernel of `drop`."""
    emit = emitter_for(dtype, vector_bytes())
    rows, layers = emit.argument(0), emit.argument(1)
    with emit.tasks(layers) as layer:
        own, keys, builder = Entries(emit, COLUMNS, rows, layer), Keys(emit), emit.builder

        found = keys.of_numbers(own.values)
        least, equal = keys.threshold(own.histogram, own.nnz, own.survivors, found)
        bits, limit = ir.IntType(emit.lanes), emit.splat(keys.cut(least), emit.lanes)
        whole = builder.and_(own.nnz, emit.constant(-emit.lanes))
        with emit.loop(emit.constant(0), whole, emit.lanes, [emit.constant(0), ir.Constant(bits, 0)]) as group:
            some, (number, bad) = found.vector(group.place), group.carried
            alive = builder.icmp_signed(">=", some, limit)
            emit.store(builder.zext(alive, ir.VectorType(ir.IntType(8), emit.lanes)), emit.add(own.alive, group.place), align=1)
            nan = builder.bitcast(builder.icmp_signed(">", some, keys.repeated(keys.of_infinity)), bits)
            ties = builder.ctpop(builder.zext(builder.bitcast(builder.icmp_signed("==", some, limit), bits), INTEGER))
            group.carried = [emit.add(number, ties), builder.or_(bad, nan)]
        ties, bad = group.carried[0], builder.zext(group.carried[1], INTEGER)
        with emit.loop(whole, own.nnz, 1, [ties, bad]) as place:
            one, (ties, bad) = found.one(place.place), place.carried
            put(emit, builder.zext(builder.icmp_signed(">=", one, least), INTEGER), own.alive, place.place, 1)
            nan, tie = (
                builder.zext(builder.icmp_signed(how, one, to), INTEGER)
                for how, to in ((">", emit.constant(keys.of_infinity)), ("==", least))
            )
            place.carried = [emit.add(ties, tie), builder.or_(bad, nan)]
        ties, bad = place.carried
        put(emit, bad, own.state, emit.constant(WEIGHT_NAN), 8)
        # Of equal ones the first are kept.
        looked_at = builder.select(builder.icmp_signed(">", ties, equal), own.nnz, emit.constant(0))
        with emit.loop(emit.constant(0), looked_at, 1, [equal]) as place:
            is_tie = builder.icmp_signed("==", found.one(place.place), least)
            is_one_more = builder.and_(is_tie, builder.icmp_signed("<=", place.carried[0], emit.constant(0)))
            known = emit.index(own.alive, place.place, 1)
            put(emit, builder.select(is_one_more, emit.constant(0), known), own.alive, place.place, 1)
            place.carried = [builder.sub(place.carried[0], builder.zext(is_tie, INTEGER))]
    return emit.compiled()
