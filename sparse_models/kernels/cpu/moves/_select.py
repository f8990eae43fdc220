"""Of the candidates that parts of a layer noted, as many of the highest as are grown, of equal ones the first."""

from typing import Any

from llvmlite import ir

from sparse_models.kernels.cpu._compile import kernel, vector_bytes
from sparse_models.kernels.cpu._emit import Emitter
from sparse_models.kernels.cpu._tile import emitter_for
from sparse_models.kernels.cpu.moves._keys import Keys, put
from sparse_models.kernels.cpu.moves._packed import append, bits_of, lowest
from sparse_models.kernels.cpu.moves._table import (
    COLUMNS,
    FOUND,
    HELD,
    IS_FULL,
    LEAST,
    LIMIT,
    NAN,
    PART,
    SCORE_NAN,
    Entries,
)


@kernel
def select_kernel(dtype: str) -> int:
    """Return the address of the kernel that selects, of one layer's candidates, what is grown."""
    emit = emitter_for(dtype, vector_bytes())
    select(emit, Entries(emit, COLUMNS, emit.argument(0), emit.constant(0)))
    return emit.compiled()


@kernel
def reduce_kernel(dtype: str) -> int:
    """Return the address of the kernel that leaves of a part's candidates as many as are grown: what is not higher is none."""
    emit = emitter_for(dtype, vector_bytes())
    part = Entries(emit, PART, emit.argument(0), emit.constant(0))
    own = Entries(emit, COLUMNS, part.layer, emit.constant(0))
    least, number = _reduced(
        emit, own.grown, emit.index(part.state, emit.constant(HELD), 8), (part.keys, part.places), part.histogram
    )
    for at, integer in ((LIMIT, least), (HELD, number)):
        put(emit, integer, part.state, emit.constant(at), 8)
    return emit.compiled()


def select(emit: Emitter, own: Entries) -> None:
    """Emit the selection of a layer: none is found where a part had no room, or where fewer are candidates than are grown."""
    builder, zero = emit.builder, emit.constant(0)
    with emit.loop(zero, own.part_count, 1, [zero, zero, zero]) as number:
        part, (before, nan, is_full) = Entries(emit, PART, own.parts, number.place), number.carried
        held = emit.index(part.state, emit.constant(HELD), 8)
        kinds = [
            (part.keys, own.keys, emit.vector, emit.width),
            (part.places, own.places, ir.VectorType(ir.IntType(32), emit.lanes), 4),
        ]
        for source, target, kind, width in kinds:
            at = emit.add(target, emit.times(before, width))
            with emit.loop(zero, held, emit.lanes) as group:
                offset = emit.times(group.place, width)
                emit.store(emit.load(kind, emit.add(source, offset)), emit.add(at, offset), align=4)
        states = [
            builder.or_(now, emit.index(part.state, emit.constant(at), 8)) for now, at in ((nan, NAN), (is_full, IS_FULL))
        ]
        number.carried = [emit.add(before, held), *states]
    held, nan, is_full = number.carried
    put(emit, nan, own.state, emit.constant(SCORE_NAN), 8)
    is_right = builder.and_(builder.icmp_signed("==", is_full, zero), builder.icmp_signed(">=", held, own.grown))
    put(emit, zero, own.state, emit.constant(FOUND), 8)
    with builder.if_then(is_right):
        least, found = _reduced(emit, own.grown, held, (own.keys, own.places), own.histogram)
        for place, value in ((LEAST, least), (FOUND, found)):
            put(emit, value, own.state, emit.constant(place), 8)


def _reduced(emit: Emitter, kept: Any, count: Any, arrays: tuple[Any, Any], histogram: Any) -> tuple[Any, Any]:
    """Emit the leaving out of candidates, of which so many are there, beyond the first `kept` of the highest.

    Returned are the lowest key of what is left, and how many are: all, where there were fewer.
    """
    builder, keys = emit.builder, Keys(emit)
    kept = emit.least(kept, count)
    known = keys.of_keys(arrays[0])
    least, equal = keys.threshold(histogram, count, kept, known)
    limit, indices = emit.splat(keys.cut(least), emit.lanes), ir.VectorType(ir.IntType(32), emit.lanes)
    with emit.loop(emit.constant(0), count, emit.lanes, [emit.constant(0), equal]) as group:
        number, left = group.carried
        found, valid = known.vector(group.place), emit.below(builder.sub(count, group.place))
        places = emit.load(indices, emit.add(arrays[1], emit.times(group.place, 4)))
        above, ties = (bits_of(emit, builder.and_(valid, builder.icmp_signed(how, found, limit))) for how in (">", "=="))
        ties = lowest(emit, ties, left)
        # What is left out is overwritten by what comes next.
        number = append(emit, builder.or_(above, ties), number, list(zip((found, places), arrays, strict=True)))
        group.carried = [number, builder.sub(left, builder.ctpop(ties))]
    return least, group.carried[0]
