"""The kernels by which candidates to be grown are found: scores, a few rows at a time, and those of them that are higher."""

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from sparse_models.kernels.cpu._arithmetic import INTEGER
from sparse_models.kernels.cpu._compile import kernel, vector_bytes
from sparse_models.kernels.cpu._emit import Emitter
from sparse_models.kernels.cpu._tile import emitter_for
from sparse_models.kernels.cpu.moves._keys import Keys, places_in, put
from sparse_models.kernels.cpu.moves._table import COLUMNS, PART, Entries
from sparse_models.kernels.cpu.moves.numbers import mixed
from sparse_models.kernels.cpu.moves.product import BLOCK, product_of, vectors


@kernel
def collect_kernel(dtype: str, column_bytes: int, source: str) -> int:
    """Return the address of the kernel that notes candidates in parts of a layer's rows, a few rows at a time.

    Scores are those of a chunk, random numbers, or products of factors.
    """
    emit = emitter_for(dtype, vector_bytes())
    layer, parts, count, *given = (emit.argument(place) for place in range(7))
    builder, keys, zero = emit.builder, Keys(emit), emit.constant(0)
    bits = ir.IntType(emit.lanes)
    infinite = ir.Constant(ir.VectorType(keys.kind, emit.lanes), [keys.of_infinity] * emit.lanes)
    with emit.tasks(count) as number:
        own, part = Entries(emit, COLUMNS, layer, zero), Entries(emit, PART, parts, number)
        with emit.loop(zero, part.count, BLOCK, [zero, ir.Constant(bits, 0)]) as block:
            first, some = (
                emit.add(part.first, block.place),
                emit.least(builder.sub(part.count, block.place), emit.constant(BLOCK)),
            )
            scores, stride = part.row, zero  # of a single row, made when it is its turn
            if source == "chunk":
                stride = emit.times(own.columns, emit.width)
                scores = emit.add(part.scores, emit.times(block.place, stride))
            if source == "product":
                last = emit.add(part.first, part.count, -1)
                product_of(emit, (first, some, emit.constant(1), last), own.columns, given, scores)
                stride = emit.padded(emit.times(own.columns, emit.width), vectors() * emit.vector_bytes)
            least = emit.index(part.state, zero, 8)
            limits = emit.splat(keys.cut(least), emit.lanes), infinite
            held = emit.index(part.state, emit.constant(1), 8)
            with emit.loop(zero, some, 1, [held, block.carried[1]]) as row:
                line, number_of_row = emit.add(scores, emit.times(row.place, stride)), emit.add(first, row.place)
                before = emit.times(number_of_row, own.columns)
                if source == "random":
                    _draw(emit, line, own.columns, before, given[:2])
                _exclude(emit, own, keys, line, number_of_row, column_bytes)
                has_room = builder.icmp_signed("<=", emit.add(row.carried[0], own.columns), part.capacity)
                with builder.if_then(builder.not_(has_room)):
                    put(emit, emit.constant(1), part.state, emit.constant(3), 8)
                with emit.loop(zero, builder.select(has_room, own.columns, zero), emit.lanes, row.carried) as group:
                    here, bad = group.carried
                    found = keys.vector_at(emit.add(line, emit.times(group.place, emit.width)))
                    valid = emit.below(builder.sub(own.columns, group.place))
                    higher, nan = (
                        builder.bitcast(builder.and_(valid, builder.icmp_signed(">", found, limit)), bits) for limit in limits
                    )

                    def note(lane: Any, at: Any, line: Any = line, group: Any = group, before: Any = before) -> None:
                        place = emit.add(group.place, lane)
                        put(emit, keys.at(line, place), part.keys, at, emit.width)
                        put(emit, emit.add(before, place), part.places, at, 4)

                    group.carried = [places_in(emit, builder.zext(higher, INTEGER), here, note), builder.or_(bad, nan)]
                row.carried = group.carried
            put(emit, row.carried[0], part.state, emit.constant(1), 8)
            block.carried = [zero, row.carried[1]]
        known = emit.index(part.state, emit.constant(2), 8)
        put(emit, builder.or_(known, builder.zext(block.carried[1], INTEGER)), part.state, emit.constant(2), 8)
    return emit.compiled()


@kernel
def guess_kernel(dtype: str) -> int:
    """Return the address of a kernel that tells, by rows far apart, above which key as many lie as are wanted of a sample."""
    emit = emitter_for(dtype, vector_bytes())
    layer, parts, wanted, apart, size, *factors = (emit.argument(place) for place in range(9))
    own, part = (Entries(emit, names, at, emit.constant(0)) for names, at in ((COLUMNS, layer), (PART, parts)))
    last = emit.add(own.rows, -1)
    product_of(emit, (emit.constant(0), emit.constant(BLOCK), apart, last), own.columns, factors, part.row)
    count = emit.times(emit.constant(BLOCK), emit.padded(own.columns, vectors() * emit.lanes))
    stride = emit.builder.sdiv(emit.add(count, emit.add(size, -1)), size)
    sample, keys = emit.builder.sdiv(count, stride), Keys(emit)
    scaled = emit.least(emit.add(emit.builder.sdiv(emit.times(wanted, sample), size), 1), sample)
    least, _ = keys.threshold(part.histogram, sample, scaled, keys.of_numbers(part.row, stride))
    put(emit, least, part.state, emit.constant(0), 8)
    return emit.compiled()


def _draw(emit: Emitter, scores: Any, columns: Any, before: Any, mixers: Sequence[Any]) -> None:
    """Emit the random numbers of a row, whose first place comes after so many, up to a vector beyond its end."""
    splats = [emit.integer_splat(key) for key in mixers]
    with emit.loop(emit.constant(0), columns, emit.lanes) as group:
        places = emit.builder.add(emit.integer_splat(emit.add(before, group.place)), emit.counting())
        emit.store(mixed(emit, places, splats), emit.add(scores, emit.times(group.place, 4)))


def _exclude(emit: Emitter, own: Entries, keys: Keys, scores: Any, row: Any, column_bytes: int) -> None:
    """Emit the overwriting of the scores of a row's survivors."""
    start, end = (emit.index(own.row_pointers, emit.add(row, more)) for more in (0, 1))
    with emit.loop(start, end) as place:
        at = emit.add(scores, emit.times(emit.index(own.indices, place.place, column_bytes), emit.width))
        is_alive = emit.builder.icmp_signed("!=", emit.index(own.alive, place.place, 1), emit.constant(0))
        emit.store(emit.builder.select(is_alive, keys.constant(keys.magnitude), emit.load(keys.kind, at)), at)


@kernel
def reduce_kernel(dtype: str) -> int:
    """Return the address of the kernel of `_reduce_part`."""
    emit = emitter_for(dtype, vector_bytes())
    builder, width = emit.builder, emit.width
    own, part = (Entries(emit, names, emit.argument(place), emit.constant(0)) for place, names in enumerate((COLUMNS, PART)))
    count = emit.index(part.state, emit.constant(1), 8)
    keys = Keys(emit)
    least, equal = keys.threshold(own.histogram, count, own.grown, keys.of_keys(part.keys))
    with emit.loop(emit.constant(0), count, 1, [emit.constant(0), equal]) as place:
        number, left = place.carried
        key, at = emit.index(part.keys, place.place, width), emit.index(part.places, place.place)
        is_equal = builder.and_(builder.icmp_signed("==", key, least), builder.icmp_signed(">", left, emit.constant(0)))
        is_kept = builder.or_(is_equal, builder.icmp_signed(">", key, least))
        put(emit, key, part.keys, number, width)  # what is not kept is overwritten by the next
        put(emit, at, part.places, number, 4)
        place.carried = [
            emit.add(number, builder.zext(is_kept, INTEGER)), builder.sub(left, builder.zext(is_equal, INTEGER))
        ]  # fmt: skip
    for at, integer in ((0, least), (1, place.carried[0])):
        put(emit, integer, part.state, emit.constant(at), 8)
    return emit.compiled()
