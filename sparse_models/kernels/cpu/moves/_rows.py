"""A part's rows as they are rewritten: set aside, then read off the marks of their columns, a piece of them at a time."""

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from sparse_models.kernels.cpu._emit import Emitter
from sparse_models.kernels.cpu.moves._keys import places_in, put
from sparse_models.kernels.cpu.moves._packed import at_once, bits_of, compressed, expanded
from sparse_models.kernels.cpu.moves._table import ALIVE, START, Entries, Form
from sparse_models.kernels.structure import PIECE

IS_THERE, WAS_THERE = 1, 2  # bits of a mark


def _moved(own: Entries, form: Form) -> list[tuple[Any, Any]]:
    """Return where values and slots are, and where they are set aside."""
    slots = [(own.of[f"slot_{place}"], own.of[f"old_slot_{place}"]) for place in range(form.slots)]
    return [(own.values, own.old_values), *slots]


def set_aside(emit: Emitter, own: Entries, part: Entries, form: Form) -> None:
    """Copy a part's columns, values and slots; note where it starts, and how many of its weights survive."""
    builder, zero = emit.builder, emit.constant(0)
    start, end = (emit.index(own.row_pointers, row) for row in (part.first, emit.add(part.first, part.count)))
    whole = emit.add(start, builder.and_(builder.sub(end, start), emit.constant(-emit.lanes)))
    column = ir.IntType(8 * form.column_bytes)
    arrays = [(column, form.column_bytes, own.indices, own.old_indices)]
    arrays += [(emit.number, emit.width, *pair) for pair in _moved(own, form)]
    for kind, width, source, target in arrays:
        for first, last, step, copied in (
            (start, whole, emit.lanes, ir.VectorType(kind, emit.lanes)),
            (whole, end, 1, kind),
        ):
            with emit.loop(first, last, step) as place:
                offset = emit.times(place.place, width)
                emit.store(emit.load(copied, emit.add(source, offset)), emit.add(target, offset), align=2)
    marks = ir.VectorType(ir.IntType(8), emit.lanes)
    with emit.loop(start, whole, emit.lanes, [zero]) as group:
        alive = builder.icmp_signed("!=", emit.load(marks, emit.add(own.alive, group.place)), ir.Constant(marks, None))
        group.carried = [emit.add(group.carried[0], builder.ctpop(bits_of(emit, alive)))]
    with emit.loop(whole, end, 1, group.carried) as place:
        place.carried = [emit.add(place.carried[0], emit.index(own.alive, place.place, 1))]
    for at, value in ((START, start), (ALIVE, place.carried[0])):
        put(emit, value, part.state, emit.constant(at), 8)


def write_columns(emit: Emitter, own: Entries, part: Entries, form: Form, first: Any, places: Sequence[Any]) -> list[Any]:
    """Emit the writing of what stands in a piece of a row's columns; return the places to be written and read next.

    Of a mark the first bit says that there is a weight, and the second that there was one, whose numbers were set aside in
    order: what is dropped and grown at once keeps them. What is new starts at 0.
    """
    builder, (written, old) = emit.builder, places
    bytes_, counts = (ir.VectorType(ir.IntType(size), emit.lanes) for size in (8, 32))
    for group in range(0, PIECE, emit.lanes):
        column = emit.add(first, group)
        at = emit.add(part.marks, column)
        marks = emit.load(bytes_, at)
        emit.store(ir.Constant(bytes_, None), at, align=1)
        is_there, was_there = (
            builder.icmp_signed("!=", builder.and_(marks, ir.Constant(bytes_, [bit] * emit.lanes)), ir.Constant(bytes_, None))
            for bit in (IS_THERE, WAS_THERE)
        )
        known = emit.add(part.counts, emit.times(column, 4))
        emit.store(builder.add(emit.load(counts, known), builder.zext(is_there, counts)), known, align=4)
        write = _by_vectors if at_once() else _one_by_one
        write(emit, own, form, column, (is_there, was_there), (written, old))
        written = emit.add(written, builder.ctpop(bits_of(emit, is_there)))
        old = emit.add(old, builder.ctpop(bits_of(emit, was_there)))
    return [written, old]


def _by_vectors(emit: Emitter, own: Entries, form: Form, column: Any, masks: tuple[Any, Any], places: tuple[Any, Any]) -> None:
    builder, (is_there, was_there), (written, old) = emit.builder, masks, places
    count = builder.ctpop(bits_of(emit, is_there))
    columns = compressed(emit, builder.add(emit.integer_splat(column), emit.counting()), is_there)
    short = columns if form.column_bytes == 4 else builder.trunc(columns, ir.VectorType(ir.IntType(16), emit.lanes))
    emit.write_first(short, emit.add(own.indices, emit.times(written, form.column_bytes)), count)
    for tensor, aside in _moved(own, form):
        known = expanded(emit, emit.load(emit.vector, emit.add(aside, emit.times(old, emit.width))), was_there)
        emit.write_first(compressed(emit, known, is_there), emit.add(tensor, emit.times(written, emit.width)), count)


def _one_by_one(emit: Emitter, own: Entries, form: Form, column: Any, masks: tuple[Any, Any], places: tuple[Any, Any]) -> None:
    builder, (is_there, was_there), (written, old) = emit.builder, (bits_of(emit, mask) for mask in masks), places

    def each(lane: Any, number: Any) -> None:
        put(emit, emit.add(column, lane), own.indices, number, form.column_bytes)
        bit = builder.shl(emit.constant(1), lane)
        source = emit.add(old, builder.ctpop(builder.and_(was_there, emit.add(bit, -1))))
        is_old = builder.icmp_signed("!=", builder.and_(was_there, bit), emit.constant(0))
        for tensor, aside in _moved(own, form):
            known = emit.load(emit.number, emit.add(aside, emit.times(source, emit.width)))
            chosen = builder.select(is_old, known, ir.Constant(emit.number, 0.0))
            emit.store(chosen, emit.add(tensor, emit.times(number, emit.width)))

    places_in(emit, is_there, written, each)
