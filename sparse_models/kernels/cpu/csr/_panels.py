"""How a product goes about its columns: all at once, or in panels whose rows of a packed tile stay in the first cache."""

from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from sparse_models.kernels.cpu._compile import vector_bytes
from sparse_models.kernels.cpu._emit import CACHE_LINE, Emitter
from sparse_models.kernels.cpu._team import threads
from sparse_models.kernels.cpu._tile import SUMS, TILE_BYTES, TOGETHER
from sparse_models.kernels.structure import PIECE, Sizes
from sparse_models.kernels.variant import Variant

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
AHEAD = 2  # rows, which are as many as are under way at once
LEAST = 8  # non-zeros of a row in a panel, on average, below which its sums are more work than its products


class Panel(NamedTuple):
    """Some columns of a matrix: where their non-zeros start and end in each row, and which columns they are."""

    starts: Any
    ends: Any
    first: Any
    end: Any = None  # above the last, or further in the last panel; None where it is all columns
    is_first: Any = None
    is_last: Any = None


def default(sizes: Sizes) -> Variant:
    """Return the variant of a product that suits most machines.

    Without panels, vectors are as many as the second cache holds of all columns, but not fewer than half of the most that there
    can be: fewer multiply-adds share then what a non-zero costs beside them.
    """
    variant = Variant(SUMS, TOGETHER, vector_bytes(), threads())
    # Where too few non-zeros of a row are in a panel that a smaller first cache holds, one that it does not hold still pays.
    for size in (min(first_cache() or variant.panel_bytes, variant.panel_bytes), variant.panel_bytes):
        narrow = variant._replace(panel_bytes=size)
        if panel_pieces(sizes, SUMS, narrow) < sizes.pieces:
            return narrow
    held = TILE_BYTES // (sizes.columns * variant.vector_bytes)
    return variant._replace(vectors=min(SUMS, max(SUMS // 2, held)))


@cache
def first_cache() -> int:
    """Return the bytes of a core's first cache of data; 0 where the system does not tell, as Linux does."""
    for folder in CACHES.glob("index*"):
        with suppress(OSError):
            level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
            if (level, kind) == ("1", "Data") and size.endswith("K") and size[:-1].isdecimal():
                return int(size[:-1]) * 1024
    return 0


def panel_pieces(sizes: Sizes, chunks: int, variant: Variant) -> int:
    """Return of how many pieces of columns a panel consists, for tiles of so many vectors: all where panels do not pay."""
    columns = max(1, variant.panel_bytes // (chunks * variant.vector_bytes) // PIECE) * PIECE
    if variant.panel_bytes == 0 or columns * sizes.nnz < LEAST * sizes.rows * sizes.columns:
        return sizes.pieces
    return min(sizes.pieces, columns // PIECE)


def panel_columns(sizes: Sizes, chunks: int, variant: Variant) -> int:
    """Return the most columns of a panel."""
    pieces = panel_pieces(sizes, chunks, variant)
    return sizes.columns if pieces == sizes.pieces else pieces * PIECE


def ask_ahead(emit: Emitter, panel: Panel, row: Any, last: Any, arrays: Sequence[tuple[Any, int]]) -> None:
    """Emit that a row some rows ahead, or the last, is wanted in the first cache: where in a panel it begins in some arrays.

    In a panel a row's non-zeros are few and lie far from the next row's, which no processor foresees.
    """
    start = emit.index(panel.starts, emit.least(emit.add(row, AHEAD), last))
    for array, width in arrays:
        at = emit.add(array, emit.times(start, width))
        for line in range(width // 2):  # 16 to 32 of them, or so many more where numbers are wider
            emit.ask_for(emit.add(at, line * CACHE_LINE))
