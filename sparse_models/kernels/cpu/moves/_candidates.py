"""The kernels by which candidates to be grown are found: scores, a few rows at a time, and those of them that are higher."""

from collections.abc import Sequence
from typing import Any

from sparse_models.kernels.cpu._compile import kernel, vector_bytes
from sparse_models.kernels.cpu._emit import Emitter
from sparse_models.kernels.cpu._tile import emitter_for
from sparse_models.kernels.cpu.moves._keys import Keys, put
from sparse_models.kernels.cpu.moves._packed import append, bits_of
from sparse_models.kernels.cpu.moves._select import select
from sparse_models.kernels.cpu.moves._table import COLUMNS, HELD, IS_FULL, LIMIT, NAN, PART, Entries
from sparse_models.kernels.cpu.moves.numbers import mixed
from sparse_models.kernels.cpu.moves.product import BLOCK, product_of, vectors


@kernel
def find_kernel(dtype: str, source: str) -> int:
    """Return the address of the kernel that notes candidates in all parts of layers' rows, and selects what is grown of them.

    Scores are random numbers or products of factors, as the layers' sources have it.
    """
    emit = emitter_for(dtype, vector_bytes())
    rows, layers, parts, count = (emit.argument(place) for place in range(4))
    with emit.tasks(count) as number:
        part = Entries(emit, PART, parts, number)
        own, zero = Entries(emit, COLUMNS, part.layer, emit.constant(0)), emit.constant(0)
        collect(emit, own, part, source, (own.least, zero, zero))
    with emit.tasks(layers) as layer:
        select(emit, Entries(emit, COLUMNS, rows, layer))
    return emit.compiled()


@kernel
def chunk_kernel(dtype: str) -> int:
    """Return the address of the kernel that adds candidates of chunks of rows, whose scores are given, to those of parts."""
    emit = emitter_for(dtype, vector_bytes())
    parts, count = (emit.argument(place) for place in range(2))
    with emit.tasks(count) as number:
        part = Entries(emit, PART, parts, number)
        known = [emit.index(part.state, emit.constant(place), 8) for place in (LIMIT, HELD, NAN)]
        collect(emit, Entries(emit, COLUMNS, part.layer, emit.constant(0)), part, "chunk", known)
    return emit.compiled()


def collect(emit: Emitter, own: Entries, part: Entries, source: str, known: Sequence[Any]) -> None:
    """Emit the noting of candidates in some rows: what is above a key, after so many that were noted before."""
    builder, keys, zero = emit.builder, Keys(emit), emit.constant(0)
    least, held, is_nan = known
    limits = emit.splat(keys.cut(least), emit.lanes), keys.repeated(keys.of_infinity)
    given = [own.of[f"source_{place}"] for place in range(4)]
    with emit.loop(zero, part.count, BLOCK, [held, is_nan, zero]) as block:
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
        with emit.loop(zero, some, 1, block.carried) as row:
            line, number_of_row = emit.add(scores, emit.times(row.place, stride)), emit.add(first, row.place)
            before = emit.times(number_of_row, own.columns)
            if source == "random":
                _draw(emit, line, own.columns, before, given[:2])
            _exclude(emit, own, keys, line, number_of_row)
            has_room = builder.icmp_signed("<=", emit.add(row.carried[0], own.columns), part.capacity)
            is_full = builder.or_(row.carried[2], builder.zext(builder.not_(has_room), row.carried[2].type))
            with emit.loop(zero, builder.select(has_room, own.columns, zero), emit.lanes, row.carried[:2]) as group:
                here, bad = group.carried
                found = keys.vector_at(emit.add(line, emit.times(group.place, emit.width)))
                valid = emit.below(builder.sub(own.columns, group.place))
                higher, nan = (bits_of(emit, builder.and_(valid, builder.icmp_signed(">", found, limit))) for limit in limits)
                places = builder.add(emit.integer_splat(emit.add(before, group.place)), emit.counting())
                noted = append(emit, higher, here, [(found, part.keys), (places, part.places)])
                group.carried = [noted, builder.or_(bad, nan)]
            row.carried = [*group.carried, is_full]
        block.carried = row.carried
    for place, value in zip((HELD, NAN, IS_FULL), block.carried, strict=True):
        put(emit, value, part.state, emit.constant(place), 8)


@kernel
def guess_kernel(dtype: str) -> int:
    """Return the address of a kernel that tells, by rows far apart, above which key as many lie as are wanted of a sample."""
    emit = emitter_for(dtype, vector_bytes())
    layer, wanted, apart, size = (emit.argument(place) for place in range(4))
    own = Entries(emit, COLUMNS, layer, emit.constant(0))
    part = Entries(emit, PART, own.parts, emit.constant(0))
    last, given = emit.add(own.rows, -1), [own.of[f"source_{place}"] for place in range(4)]
    product_of(emit, (emit.constant(0), emit.constant(BLOCK), apart, last), own.columns, given, part.row)
    count = emit.times(emit.constant(BLOCK), emit.padded(own.columns, vectors() * emit.lanes))
    stride = emit.builder.sdiv(emit.add(count, emit.add(size, -1)), size)
    sample, keys = emit.builder.sdiv(count, stride), Keys(emit)
    scaled = emit.least(emit.add(emit.builder.sdiv(emit.times(wanted, sample), size), 1), sample)
    least, _ = keys.threshold(part.histogram, sample, scaled, keys.of_numbers(part.row, stride))
    put(emit, least, part.state, emit.constant(LIMIT), 8)
    return emit.compiled()


def _draw(emit: Emitter, scores: Any, columns: Any, before: Any, mixers: Sequence[Any]) -> None:
    """Emit the random numbers of a row, whose first place comes after so many, up to a vector beyond its end."""
    splats = [emit.integer_splat(key) for key in mixers]
    with emit.loop(emit.constant(0), columns, emit.lanes) as group:
        places = emit.builder.add(emit.integer_splat(emit.add(before, group.place)), emit.counting())
        emit.store(mixed(emit, places, splats), emit.add(scores, emit.times(group.place, 4)))


def _exclude(emit: Emitter, own: Entries, keys: Keys, scores: Any, row: Any) -> None:
    """Emit the overwriting of the scores of a row's survivors."""
    builder = emit.builder
    start, end = (emit.index(own.row_pointers, emit.add(row, more)) for more in (0, 1))
    for column_bytes in (2, 4):
        is_so = builder.icmp_signed("==", own.column_bytes, emit.constant(column_bytes))
        with builder.if_then(is_so), emit.loop(start, end) as place:
            at = emit.add(scores, emit.times(emit.index(own.indices, place.place, column_bytes), emit.width))
            is_alive = builder.icmp_signed("!=", emit.index(own.alive, place.place, 1), emit.constant(0))
            emit.store(builder.select(is_alive, keys.constant(keys.magnitude), emit.load(keys.kind, at)), at)
