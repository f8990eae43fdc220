"""The gradient of every weight, a few rows at a time in a cache: output gradients times inputs, over all samples of a batch.

Columns have been packed, so many vectors of them sample by sample; a few rows' sums over a tile of samples stay in registers.
"""

from collections.abc import Sequence
from typing import Any

from sparse_models.kernels.cpu._compile import vector_bytes
from sparse_models.kernels.cpu._emit import Emitter

BLOCK, ROWS = 32, 4  # rows whose scores are found together, and of them in registers
ADDRESSES = 2  # of a tile: output gradients [out, samples] and inputs [in, samples]


def vectors() -> int:
    """Return the vectors of a panel of columns: with as many registers as AVX-512 has, twice as many."""
    return 4 if vector_bytes() == 64 else 2


def padded(columns: int, itemsize: int) -> int:
    """Return how many columns panels have that hold so many."""
    panel = vectors() * vector_bytes() // itemsize
    return -(-columns // panel) * panel


def product_of(emit: Emitter, rows: Sequence[Any], columns: Any, factors: Sequence[Any], scores: Any) -> None:
    """Emit the scores [BLOCK, padded columns] of some rows: given are the first, how many, each how far apart, and the last.

    Beyond the last row it stands again.
    """
    table, tiles, samples, packed = factors
    first, number, apart, last = rows
    builder, count = emit.builder, vectors()
    panels, panel_bytes = emit.over(columns, count * emit.lanes), count * emit.vector_bytes
    row_bytes = emit.times(panels, panel_bytes)
    with emit.loop(emit.constant(0), tiles) as tile:
        slopes = emit.index(table, emit.times(tile.place, ADDRESSES), 8)
        is_first = builder.icmp_signed("==", tile.place, emit.constant(0))
        with emit.loop(emit.constant(0), panels) as panel:
            at = emit.add(emit.times(tile.place, panels), panel.place)
            own = emit.add(packed, emit.times(emit.times(at, samples), panel_bytes))
            with emit.loop(emit.constant(0), number, ROWS) as group:
                sources = [
                    emit.add(slopes, emit.times(emit.times(emit.least(place, last), samples), emit.width))
                    for place in (emit.add(first, emit.times(emit.add(group.place, row), apart)) for row in range(ROWS))
                ]
                targets = [
                    emit.add(scores, emit.times(row_bytes, emit.add(group.place, row)), emit.times(panel.place, panel_bytes))
                    for row in range(ROWS)
                ]
                before = [
                    builder.select(is_first, emit.zero(), vector)
                    for target in targets
                    for vector in emit.vectors(target, count)
                ]
                with emit.loop(emit.constant(0), samples, 1, before) as sample:
                    loaded = emit.vectors(emit.add(own, emit.times(sample.place, panel_bytes)), count)
                    offset, sums = emit.times(sample.place, emit.width), sample.carried
                    sample.carried = []
                    for row, source in enumerate(sources):
                        slope = emit.splat(emit.load(emit.number, emit.add(source, offset)))
                        sample.carried += [
                            emit.multiply_add(slope, vector, sums[row * count + place]) for place, vector in enumerate(loaded)
                        ]
                for row, target in enumerate(targets):
                    emit.write(sample.carried[row * count : (row + 1) * count], target)
