"""A CSR matrix in the kernels: its rows times a packed tile, panel by panel.

A panel is some columns, so few that their rows of a tile stay in the first cache, where a multiply-add finds its vector in half
of the time that the second cache takes. All rows are walked for one panel before the next; what they have come to is kept
between.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from sparse_models.kernels.cpu._emit import SMALL_BYTES, Emitter
from sparse_models.kernels.cpu._tile import SUMS, Sums, add_to, few_splats
from sparse_models.kernels.cpu.csr._panels import Panel, ask_ahead
from sparse_models.kernels.structure import PIECE

if TYPE_CHECKING:
    from sparse_models.kernels.cpu.csr._form import CsrForm

POINTER_BYTES = ORDER_BYTES = 4


class Matrix(NamedTuple):
    """The addresses of a sparse matrix: where its rows start in each piece of columns, its indices, their order, its values.

    The order says, in an ordered form, where among the values each non-zero's is. From a piece's starts to the next's are
    `step` bytes, and `panel` of the `pieces` are walked at a time.
    """

    form: "CsrForm"
    starts: Any
    indices: Any
    order: Any
    step: Any
    pieces: Any
    panel: Any
    values: Any

    @contextmanager
    def panels(self, emit: Emitter) -> Iterator[Panel]:
        """Emit the block under `with` for each panel of columns."""
        if self.form.is_whole:
            yield Panel(self.starts, emit.add(self.starts, POINTER_BYTES), emit.constant(0))
            return
        with emit.loop(emit.constant(0), self.pieces, self.panel) as piece:
            after = emit.least(emit.add(piece.place, self.panel), self.pieces)
            starts, ends = (emit.add(self.starts, emit.times(self.step, place)) for place in (piece.place, after))
            first, end = (emit.times(place, PIECE) for place in (piece.place, after))
            is_first = emit.builder.icmp_signed("==", piece.place, emit.constant(0))
            is_last = emit.builder.icmp_signed("==", after, self.pieces)
            yield Panel(starts, ends, first, end, is_first, is_last)

    @contextmanager
    def rows(self, emit: Emitter, panel: Panel, rows: Sequence[Any]) -> Iterator[tuple[Any, Any, Any]]:
        """Emit the block under `with` for each row from one to below another: it, and where it starts and ends in a panel."""
        first, last = rows

        def bounds(row: Any) -> list[Any]:
            return [emit.index(address, row) for address in (panel.starts, panel.ends)]

        with emit.loop(first, last, 1, bounds(first)) as row:
            start, end = row.carried
            # Loaded a row ahead, so that nothing waits for it.
            row.carried = bounds(emit.least(emit.add(row.place, 1), emit.add(last, -1)))
            yield row.place, start, end

    def tile_rows(self, emit: Emitter, place: Any, count: int, tile: Any, tile_bytes: int) -> list[Any]:
        """Return the addresses of a packed tile's rows that `count` non-zeros from a place on stand for."""
        indices = emit.indices(self.indices, place, count, self.form.index_bytes)
        return [emit.add(tile, emit.times(index, tile_bytes)) for index in indices]

    def number_bytes(self, emit: Emitter) -> int:
        """Return the bytes of what belongs to a non-zero."""
        return 2 if self.form.short else emit.width

    def value(self, emit: Emitter, place: Any) -> Any:
        """Return the address of what belongs to a non-zero."""
        return emit.add(self.values, emit.times(place, self.number_bytes(emit)))

    def splats(self, emit: Emitter, place: Any, count: int) -> list[Any]:
        """Return the values of `count` non-zeros from a place on, each spread over a vector."""
        if self.form.is_ordered:
            places = emit.indices(self.order, place, count, ORDER_BYTES)
            return [emit.splat(emit.load(emit.number, self.value(emit, one))) for one in places]
        if self.form.short:
            few = emit.widened_at(self.value(emit, place), count, self.form.short)
            return [emit.chosen(few, few, [number] * emit.lanes) for number in range(count)]
        few = SMALL_BYTES // emit.width
        if count % few:
            return [emit.splat(emit.load(emit.number, self.value(emit, emit.add(place, one)))) for one in range(count)]
        starts = [self.value(emit, emit.add(place, first)) for first in range(0, count, few)]
        return [one for start in starts for one in few_splats(emit, start, few)]

    def products(self, emit: Emitter, rows: Sequence[Any], tile: Any, sums: Sums) -> None:
        """Emit, for each row from one to below another, its product with a packed tile."""
        self.panel_products(emit, rows, lambda _: tile, sums)

    def panel_products(self, emit: Emitter, rows: Sequence[Any], tile: Callable[[Panel], Any], sums: Sums) -> None:
        """Emit what `products` does; `tile` packs a panel, and says where the tile would begin that has it in its place."""
        with self.panels(emit) as panel:
            at = tile(panel)
            with self.rows(emit, panel, rows) as (row, start, end):
                if self.form.is_whole:
                    sums.finish(row, self._row_product(emit, (start, end), at, sums.begin(row)))
                else:
                    numbers = (self.order, ORDER_BYTES) if self.form.is_ordered else (self.values, self.number_bytes(emit))
                    ask_ahead(emit, panel, row, emit.add(rows[1], -1), [numbers, (self.indices, self.form.index_bytes)])
                    kept = emit.add(sums.kept, emit.times(row, sums.chunks * emit.vector_bytes))
                    totals = emit.either(panel.is_first, partial(sums.begin, row), partial(emit.vectors, kept, sums.chunks))
                    totals = self._row_product(emit, (start, end), at, totals)
                    with emit.builder.if_else(panel.is_last) as (last, other):
                        with last:
                            sums.finish(row, totals)
                        with other:
                            emit.write(totals, kept)

    def sampled(
        self,
        emit: Emitter,
        rows: Any,
        held: Any,
        tile: Any,
        chunks: int,
        is_first: Any,
        each: Callable[[Any, list[Any]], None],
        spare: Any,  # noqa: ARG002  # what blocks need
    ) -> None:
        """Add, at the non-zeros, products of so many rows of a packed tile `held` with another's to the values.

        Where `is_first` holds, what was in the values does not count; `each` is given each row and its vectors.
        """

        def vectors(row: Any) -> list[Any]:
            return emit.vectors(emit.add(held, emit.times(row, chunks * emit.vector_bytes)), chunks)

        self.panel_sampled(emit, (emit.constant(0), rows), lambda _: tile, vectors, is_first, each)

    def panel_sampled(
        self,
        emit: Emitter,
        rows: Sequence[Any],
        tile: Callable[[Panel], Any],
        held: Callable[[Any], list[Any]],
        is_first: Any,
        each: Callable[[Any, list[Any]], None] | None = None,
    ) -> None:
        """Emit what `sampled` does for rows from one to below another, whose vectors `held` says; `tile` packs a panel."""
        with self.panels(emit) as panel:
            at = tile(panel)
            with self.rows(emit, panel, rows) as (row, start, end):
                vectors = held(row)
                self._row_sampled(emit, (start, end), at, vectors, is_first)
                if each:
                    with nullcontext() if self.form.is_whole else emit.builder.if_then(panel.is_first):
                        each(row, vectors)

    def row(self, emit: Emitter, row: Any) -> tuple[Any, Any, Any]:
        """Return where a row's non-zeros start, where those of whole groups end, and where all end: of a whole matrix."""
        start, end = emit.index(self.starts, row), emit.index(self.starts, emit.add(row, 1))
        return start, self.whole_groups(emit, start, end), end

    def whole_groups(self, emit: Emitter, start: Any, end: Any) -> Any:
        """Return where those non-zeros end that fill whole groups."""
        return emit.add(start, emit.builder.and_(emit.builder.sub(end, start), emit.constant(-self.form.together)))

    def _row_product(self, emit: Emitter, bounds: Sequence[Any], tile: Any, totals: list[Any]) -> list[Any]:
        """Return `totals`, a vector each, plus the product of a row's non-zeros from one to below another with a packed tile.

        A narrow tile has several sums for each of its vectors, so that a multiply-add need not wait for the one before.
        """
        (start, end), chunks, together = bounds, len(totals), self.form.together
        sets = min(together, max(1, SUMS // chunks))
        whole = self.whole_groups(emit, start, end)

        def add(place: Any, count: int, sums: list[Any]) -> list[Any]:
            rows = self.tile_rows(emit, place, count, tile, chunks * emit.vector_bytes)
            for number, (at, value) in enumerate(zip(rows, self.splats(emit, place, count), strict=True)):
                own = number * chunks % len(sums)
                sums[own : own + chunks] = [
                    emit.multiply_add(value, vector, total)
                    for vector, total in zip(emit.vectors(at, chunks), sums[own : own + chunks], strict=True)
                ]
            return sums

        with emit.loop(start, whole, together, [*totals, *[emit.zero()] * (chunks * (sets - 1))]) as group:
            group.carried = add(group.place, together, group.carried[:])
        sums = group.carried
        while len(sums) > chunks:
            half = len(sums) // 2
            sums = [emit.plus(*pair) for pair in zip(sums[:half], sums[half:], strict=True)]
        with emit.loop(whole, end, 1, sums) as one:
            one.carried = add(one.place, 1, one.carried[:])
        return one.carried

    def _row_sampled(self, emit: Emitter, bounds: Sequence[Any], tile: Any, held: list[Any], is_first: Any) -> None:
        """Add, at a row's non-zeros from one to below another, the products of the row `held` with a packed tile's rows."""
        (start, end), together = bounds, self.form.together
        whole = self.whole_groups(emit, start, end)

        def products(place: Any, count: int) -> list[Any]:
            rows = self.tile_rows(emit, place, count, tile, len(held) * emit.vector_bytes)
            sums = [emit.zero()] * count
            for number, at in enumerate(rows):
                for vector, mine in zip(emit.vectors(at, len(held)), held, strict=True):
                    sums[number] = emit.multiply_add(vector, mine, sums[number])
            return sums

        summed = min(together, emit.lanes)
        with emit.loop(start, whole, together) as group:
            sums = products(group.place, together)
            for first in range(0, together, summed):
                place = emit.add(group.place, first)
                add_to(emit, emit.totals(sums[first : first + summed]), self.value(emit, place), is_first)
        with emit.loop(whole, end) as one:
            add_to(emit, emit.total(*products(one.place, 1)), self.value(emit, one.place), is_first)
