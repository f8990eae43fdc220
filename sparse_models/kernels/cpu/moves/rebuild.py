"""From the weights that survive and those that are grown to the index both ways, with values and optimizer slots, in place.

A row at a time: a byte of each column tells what is there, and a vector of columns is read off at a time.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from sparse_models.kernels.cpu._arithmetic import name_of
from sparse_models.kernels.cpu._compile import kernel, vector_bytes
from sparse_models.kernels.cpu._emit import Emitter
from sparse_models.kernels.cpu._team import run, threads
from sparse_models.kernels.cpu._tile import emitter_for
from sparse_models.kernels.cpu.moves._keys import put
from sparse_models.kernels.cpu.moves._rows import IS_THERE, WAS_THERE, set_aside, write_columns
from sparse_models.kernels.cpu.moves._table import ALIVE, COLUMNS, PART, START, Entries, Form, Work
from sparse_models.kernels.structure import PIECE

PANEL = (
    8  # pieces of columns whose rows are written together: of as many cache lines for each of two arrays as a first cache has
)


def rebuild(works: Sequence[Work], tables: tuple[Tensor, Tensor], forms: Sequence[Form]) -> None:
    """Rewrite the layers, each with the candidates that are left of it; rows of their table number `forms`."""
    function, parts = _rebuild(name_of(works[0].storage.values.dtype), tuple(forms)), tables[1]
    run(function, (parts, len(parts), PANEL), min(threads(), len(parts)))


@kernel
def _rebuild(dtype: str, forms: Sequence[Form]) -> int:
    """Return the address of the kernel of `rebuild` for layers of some forms."""
    emit = emitter_for(dtype, vector_bytes())
    parts, count = emit.argument(0), emit.argument(1)
    for phase in (set_aside, _rewrite, _transpose):
        with emit.tasks(count) as task:
            part = Entries(emit, PART, parts, task)
            own = Entries(emit, COLUMNS, part.layer, emit.constant(0))
            for number, form in enumerate(forms):
                with emit.builder.if_then(emit.builder.icmp_signed("==", own.form, emit.constant(number))):
                    phase(emit, own, part, form)
    return emit.compiled()


def _rewrite(emit: Emitter, own: Entries, part: Entries, form: Form) -> None:
    """Write each row anew: its columns, values, slots, where it ends, and how many non-zeros columns come to in the part."""
    builder, zero = emit.builder, emit.constant(0)
    whole = emit.padded(own.columns, PIECE)
    for array, width in ((part.marks, 1), (part.counts, 4)):
        with emit.loop(zero, emit.times(whole, width), 8) as place:
            emit.store(zero, emit.add(array, place.place), align=4)
    grown = _grown_before(emit, own, emit.times(part.first, own.columns))
    with emit.loop(zero, part.number, 1, [grown]) as other:
        state = Entries(emit, PART, own.parts, other.place).state
        other.carried = [emit.add(other.carried[0], emit.index(state, emit.constant(ALIVE), 8))]
    first = emit.index(part.state, emit.constant(START), 8)
    has_pieces = builder.icmp_signed("!=", own.row_starts, zero)
    # Old places, new ones, and grown ones.
    with emit.loop(part.first, emit.add(part.first, part.count), 1, [first, other.carried[0], grown]) as row:
        start, written, grown = row.carried
        end = emit.index(own.row_pointers, emit.add(row.place, 1))
        with emit.loop(start, end) as place:
            column = emit.index(own.old_indices, place.place, form.column_bytes)
            # 1, which is IS_THERE, where it survives.
            put(emit, emit.add(emit.index(own.alive, place.place, 1), WAS_THERE), part.marks, column, 1)
        grown = _mark_grown(emit, own, part, row.place, grown)
        with emit.loop(zero, whole, PIECE, [written, start]) as piece:
            with builder.if_then(has_pieces):
                at = emit.times(emit.over(piece.place, PIECE), own.rows)
                put(emit, piece.carried[0], own.row_starts, emit.add(at, row.place), 4)
            piece.carried = write_columns(emit, own, part, form, piece.place, piece.carried)
        written = piece.carried[0]
        with builder.if_then(has_pieces):
            at = emit.times(emit.over(own.columns, PIECE), own.rows)
            put(emit, written, own.row_starts, emit.add(at, row.place), 4)
        put(emit, written, own.row_pointers, emit.add(row.place, 1), 4)
        row.carried = [end, written, grown]


def _grown_before(emit: Emitter, own: Entries, place: Any) -> Any:
    """Return how many of what is grown comes before a place, of places in order: by halves."""
    builder = emit.builder
    with emit.loop(emit.constant(0), emit.constant(32), 1, [emit.constant(0), own.grown]) as half:
        low, high = half.carried
        middle = builder.lshr(emit.add(low, high), emit.constant(1))
        # Behind the last there is room for one more.
        is_before = builder.and_(
            builder.icmp_signed("<", middle, high), builder.icmp_signed("<", emit.index(own.places, middle), place)
        )
        half.carried = [builder.select(is_before, emit.add(middle, 1), low), builder.select(is_before, high, middle)]
    return half.carried[0]


def _mark_grown(emit: Emitter, own: Entries, part: Entries, row: Any, grown: Any) -> Any:
    """Emit the marks of what is grown in a row, and return the place of what is grown next."""
    builder, first = emit.builder, emit.times(row, own.columns)
    beyond = emit.add(first, own.columns)
    before, head, body, after = builder.block, *(emit.function.append_basic_block() for _ in range(3))
    builder.branch(head)
    builder.position_at_end(head)
    number = builder.phi(grown.type)
    # Behind the last there is room for one more, which is not looked at.
    at = emit.index(own.places, number)
    has_more = builder.and_(builder.icmp_signed("<", number, own.grown), builder.icmp_signed("<", at, beyond))
    builder.cbranch(has_more, body, after)
    builder.position_at_end(body)
    column = builder.sub(at, first)
    put(emit, builder.or_(emit.index(part.marks, column, 1), emit.constant(IS_THERE)), part.marks, column, 1)
    number.add_incoming(grown, before)
    number.add_incoming(emit.add(number, 1), builder.block)
    builder.branch(head)
    builder.position_at_end(after)
    return number


def _transpose(emit: Emitter, own: Entries, part: Entries, form: Form) -> None:
    """Write a part of the transpose's index: each column's rows in order, where values are, and where pieces start."""
    builder, zero = emit.builder, emit.constant(0)
    is_first = builder.icmp_signed("==", part.number, zero)
    with builder.if_then(is_first):
        put(emit, zero, own.column_pointers, zero, 4)
    with emit.loop(zero, own.columns, 1, [zero]) as column:
        with emit.loop(zero, own.part_count, 1, [column.carried[0]] * 2) as other:
            mine, end = other.carried
            counts = emit.index(
                emit.add(own.parts, emit.times(other.place, 8 * len(PART))), emit.constant(PART.index("counts")), 8
            )
            end = emit.add(end, emit.index(counts, column.place))
            is_before = builder.icmp_signed("<", other.place, part.number)
            other.carried = [builder.select(is_before, end, mine), end]
        mine, end = other.carried
        put(emit, mine, part.following, column.place, 4)
        with builder.if_then(is_first):
            put(emit, end, own.column_pointers, emit.add(column.place, 1), 4)
        column.carried = [end]
    # Some columns at a time, where it is known where they start in rows: what is written to of theirs stays in the first cache.
    knows_pieces, is_cut = (builder.icmp_signed("!=", starts, zero) for starts in (own.row_starts, own.column_starts))
    pieces, row_bytes = emit.over(own.columns, PIECE), emit.times(own.rows, 4)
    step, last = builder.select(knows_pieces, emit.argument(2), pieces), emit.add(part.first, part.count)
    with emit.loop(zero, pieces, step) as panel:
        beyond = emit.least(emit.add(panel.place, step), pieces)
        sides = (own.row_pointers, panel.place), (emit.add(own.row_pointers, 4), beyond)
        bounds = [
            builder.select(knows_pieces, emit.add(own.row_starts, emit.times(number, row_bytes)), pointers)
            for pointers, number in sides
        ]
        columns = emit.times(panel.place, PIECE), emit.least(emit.times(beyond, PIECE), own.columns)
        with emit.loop(part.first, last, PIECE) as piece:
            with builder.if_then(is_cut):
                _note_starts(emit, own, part, emit.over(piece.place, PIECE), columns)
            with (
                emit.loop(piece.place, emit.least(emit.add(piece.place, PIECE), last)) as row,
                emit.loop(*(emit.index(bound, row.place) for bound in bounds)) as place,
            ):
                column_number = emit.index(own.indices, place.place, form.column_bytes)
                at = emit.index(part.following, column_number)
                put(emit, emit.add(at, 1), part.following, column_number, 4)
                put(emit, row.place, own.row_indices, at, form.row_bytes)
                put(emit, place.place, own.transposition, at, 4)
        with builder.if_then(builder.and_(is_cut, builder.icmp_signed("==", last, own.rows))):
            _note_starts(emit, own, part, emit.over(own.rows, PIECE), columns)


def _note_starts(emit: Emitter, own: Entries, part: Entries, piece: Any, columns: tuple[Any, Any]) -> None:
    """Emit the writing of where some columns go on from a piece of rows on."""
    starts = emit.add(own.column_starts, emit.times(emit.times(piece, own.columns), 4))
    with emit.loop(*columns) as column:
        put(emit, emit.index(part.following, column.place), starts, column.place, 4)
