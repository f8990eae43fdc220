"""From the weights that survive and those that are grown to the index both ways, with values and optimizer slots, in place.

A row at a time: the bits of its columns are set, with where each one's numbers stood, and read off in order.
"""

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from torch import Tensor

from sparse_models.kernels.cpu._arithmetic import INTEGER, name_of
from sparse_models.kernels.cpu._compile import kernel, vector_bytes
from sparse_models.kernels.cpu._emit import Emitter
from sparse_models.kernels.cpu._team import run, threads
from sparse_models.kernels.cpu._tile import emitter_for
from sparse_models.kernels.cpu.moves._keys import places_in, put
from sparse_models.kernels.cpu.moves._table import COLUMNS, Entries, Form, Work
from sparse_models.kernels.structure import PIECE

WORD = 64  # columns whose bits are looked at together


def rebuild(works: Sequence[Work], rows: Tensor, forms: Sequence[Form]) -> None:
    """Rewrite the layers, each with the candidates that are left of it; rows of the table number `forms`."""
    function = _rebuild(name_of(works[0].storage.values.dtype), tuple(forms))
    run(function, (rows, len(works)), min(threads(), len(works)))


@kernel
def _rebuild(dtype: str, forms: Sequence[Form]) -> int:
    """Return the address of the kernel of `rebuild` for layers of some forms."""
    emit = emitter_for(dtype, vector_bytes())
    rows, layers = emit.argument(0), emit.argument(1)
    with emit.tasks(layers) as layer:
        own = Entries(emit, COLUMNS, rows, layer)
        for number, form in enumerate(forms):
            with emit.builder.if_then(emit.builder.icmp_signed("==", own.form, emit.constant(number))):
                _set_aside(emit, own, form)
                _rewrite(emit, own, form)
                _transpose(emit, own, form)
    return emit.compiled()


def _moved(own: Entries, form: Form) -> list[tuple[Any, Any]]:
    """Return where values and slots are, and where they are set aside."""
    slots = [(own.of[f"slot_{place}"], own.of[f"old_slot_{place}"]) for place in range(form.slots)]
    return [(own.values, own.old_values), *slots]


def _set_aside(emit: Emitter, own: Entries, form: Form) -> None:
    """Copy what is rewritten; one place behind the last is 0, from where grown weights come."""
    with emit.loop(emit.constant(0), own.nnz) as place:
        put(emit, emit.index(own.indices, place.place, form.column_bytes), own.old_indices, place.place, form.column_bytes)
    for tensor, aside in _moved(own, form):
        with emit.loop(emit.constant(0), own.nnz) as place:
            at = emit.times(place.place, emit.width)
            emit.store(emit.load(emit.number, emit.add(tensor, at)), emit.add(aside, at))
        emit.store(ir.Constant(emit.number, 0.0), emit.add(aside, emit.times(own.nnz, emit.width)))
    _fill(emit, own.sources, own.columns, own.nnz)
    _fill(emit, own.following, own.columns, emit.constant(0))
    with emit.loop(emit.constant(0), emit.over(own.columns, WORD)) as word:
        put(emit, emit.constant(0), own.bits, word.place, 8)


def _fill(emit: Emitter, array: Any, count: Any, integer: Any) -> None:
    with emit.loop(emit.constant(0), count) as place:
        put(emit, integer, array, place.place, 4)


def _set_bit(emit: Emitter, own: Entries, column: Any, bit: Any) -> None:
    builder, word = emit.builder, emit.builder.lshr(column, emit.constant(6))
    shifted = builder.shl(bit, builder.and_(column, emit.constant(WORD - 1)))
    put(emit, builder.or_(emit.index(own.bits, word, 8), shifted), own.bits, word, 8)


def _rewrite(emit: Emitter, own: Entries, form: Form) -> None:
    """Write each row anew: its columns, values, slots, where it ends, and how many non-zeros columns come to."""
    builder, zero, last = emit.builder, emit.constant(0), emit.over(own.columns, WORD)
    with emit.loop(zero, own.rows, 1, [zero, zero, zero]) as row:  # old and new places, and grown ones
        start, written, grown = row.carried
        end = emit.index(own.row_pointers, emit.add(row.place, 1))
        with emit.loop(start, end) as place:
            column = emit.index(own.old_indices, place.place, form.column_bytes)
            put(emit, place.place, own.sources, column, 4)
            _set_bit(emit, own, column, emit.index(own.alive, place.place, 1))
        grown = _set_grown(emit, own, row.place, grown)
        has_pieces = builder.icmp_signed("!=", own.row_starts, zero)
        with emit.loop(zero, last, 1, [written]) as word:
            bits, before = emit.index(own.bits, word.place, 8), word.carried[0]
            put(emit, zero, own.bits, word.place, 8)
            with builder.if_then(has_pieces):
                lower = builder.ctpop(builder.and_(bits, emit.constant(2**PIECE - 1)))
                for half, integer in enumerate((before, emit.add(before, lower))):
                    piece = emit.add(emit.times(word.place, WORD // PIECE), half)
                    put(emit, integer, own.row_starts, emit.add(emit.times(piece, own.rows), row.place), 4)

            def write(bit: Any, number: Any, first: Any = word.place) -> None:
                column = emit.add(emit.times(first, WORD), bit)
                put(emit, column, own.indices, number, form.column_bytes)
                source = emit.index(own.sources, column)
                for tensor, aside in _moved(own, form):
                    old = emit.load(emit.number, emit.add(aside, emit.times(source, emit.width)))
                    emit.store(old, emit.add(tensor, emit.times(number, emit.width)))
                put(emit, emit.add(emit.index(own.following, column), 1), own.following, column, 4)

            word.carried = [places_in(emit, bits, before, write)]
        [after] = word.carried
        with builder.if_then(has_pieces):
            pieces = emit.over(own.columns, PIECE)
            put(emit, after, own.row_starts, emit.add(emit.times(pieces, own.rows), row.place), 4)
        with emit.loop(start, end) as place:
            put(emit, own.nnz, own.sources, emit.index(own.old_indices, place.place, form.column_bytes), 4)
        put(emit, after, own.row_pointers, emit.add(row.place, 1), 4)
        row.carried = [end, after, grown]


def _set_grown(emit: Emitter, own: Entries, row: Any, grown: Any) -> Any:
    """Emit the bits of what is grown in a row, and return the place of what is grown next."""
    builder, first = emit.builder, emit.times(row, own.columns)
    beyond = emit.add(first, own.columns)
    before, head, body, after = builder.block, *(emit.function.append_basic_block() for _ in range(3))
    builder.branch(head)
    builder.position_at_end(head)
    number = builder.phi(INTEGER)
    # Behind the last there is room for one more, which is not looked at.
    at = emit.index(own.places, number)
    has_more = builder.and_(builder.icmp_signed("<", number, own.grown), builder.icmp_signed("<", at, beyond))
    builder.cbranch(has_more, body, after)
    builder.position_at_end(body)
    _set_bit(emit, own, builder.sub(at, first), emit.constant(1))
    number.add_incoming(grown, before)
    number.add_incoming(emit.add(number, 1), builder.block)
    builder.branch(head)
    builder.position_at_end(after)
    return number


def _transpose(emit: Emitter, own: Entries, form: Form) -> None:
    """Write the transpose's index: each column's rows in order, where their values are, and where its pieces start."""
    builder, zero = emit.builder, emit.constant(0)
    put(emit, zero, own.column_pointers, zero, 4)
    with emit.loop(zero, own.columns, 1, [zero]) as column:
        start = column.carried[0]
        end = emit.add(start, emit.index(own.following, column.place))
        put(emit, start, own.following, column.place, 4)
        put(emit, end, own.column_pointers, emit.add(column.place, 1), 4)
        column.carried = [end]
    has_pieces = builder.icmp_signed("!=", own.column_starts, zero)
    with emit.loop(zero, own.rows, PIECE) as piece:
        with builder.if_then(has_pieces):
            number = emit.over(piece.place, PIECE)
            starts = emit.add(own.column_starts, emit.times(emit.times(number, own.columns), 4))
            with emit.loop(zero, own.columns) as column:
                put(emit, emit.index(own.following, column.place), starts, column.place, 4)
        with emit.loop(piece.place, emit.least(emit.add(piece.place, PIECE), own.rows)) as row:
            start, end = (emit.index(own.row_pointers, emit.add(row.place, more)) for more in (0, 1))
            with emit.loop(start, end) as place:
                column_number = emit.index(own.indices, place.place, form.column_bytes)
                at = emit.index(own.following, column_number)
                put(emit, emit.add(at, 1), own.following, column_number, 4)
                put(emit, row.place, own.row_indices, at, form.row_bytes)
                put(emit, place.place, own.transposition, at, 4)
    with builder.if_then(has_pieces):
        pieces = emit.over(own.rows, PIECE)
        starts = emit.add(own.column_starts, emit.times(emit.times(pieces, own.columns), 4))
        with emit.loop(zero, own.columns) as column:
            put(emit, emit.index(own.column_pointers, emit.add(column.place, 1)), starts, column.place, 4)
