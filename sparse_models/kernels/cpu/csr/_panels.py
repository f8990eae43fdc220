"""How many columns of a matrix are walked at a time: so few that their rows of a packed tile stay in the first cache."""

from sparse_models.kernels.structure import PIECE, Sizes
from sparse_models.kernels.variant import Variant

LEAST = 8  # non-zeros of a row in a panel, on average, below which its sums are more work than its products


def panel_pieces(sizes: Sizes, chunks: int, variant: Variant) -> int:
    """Return of how many pieces of columns a panel consists, for tiles of so many vectors."""
    if variant.panel_bytes == 0:
        return sizes.pieces
    columns = variant.panel_bytes // (chunks * variant.vector_bytes)
    columns = max(columns, LEAST * sizes.rows * sizes.columns // max(1, sizes.nnz))
    return min(sizes.pieces, max(1, columns // PIECE))


def panel_columns(sizes: Sizes, chunks: int, variant: Variant) -> int:
    """Return the most columns of a panel."""
    pieces = panel_pieces(sizes, chunks, variant)
    return sizes.columns if pieces == sizes.pieces else pieces * PIECE
