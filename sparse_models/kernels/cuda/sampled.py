"""The gradient of a sparse matrix's values on a GPU: what sparse_models.kernels.tiled.sampled means."""

import torch
from torch import Tensor

from sparse_models.kernels.cuda import _compile, _tiling
from sparse_models.kernels.cuda._compile import Launch
from sparse_models.kernels.cuda._tiling import Tiling, aligned, estimated, fastest
from sparse_models.kernels.structure import Structure

STAGED_BYTES = 2 * 32 * 4  # of a warp: two times 32 places
CANDIDATES = [Tiling(8, pieces, rows, cuts=cuts) for pieces in (2, 4, 1) for rows in (16, 8, 4, 2, 1) for cuts in (1, 2, 4)]


def sampled(structure: Structure, grad: Tensor, x: Tensor, *, tiling: Tiling | None = None, parts: int | None = None) -> Tensor:
    """Return, at the non-zeros alone [nnz], grad [rows, batch] times x [columns, batch] transposed, all contiguous.

    The batch is cut into parts, added in their order: for a tiling and a number of parts the result is always the same.
    """
    (columns, batch), nnz = x.shape, len(structure.indices)
    if batch == 0 or nnz == 0:
        return x.new_zeros(nnz)
    tiling = tiling or default_tiling(structure, x)
    tiles = -(-batch // tiling.tile(x.dtype))
    tiles_each = _tiles_each(tiling, structure, x) if parts is None else -(-tiles // parts)
    parts = -(-tiles // tiles_each)
    slab, shared_bytes = tiling.slab(columns, STAGED_BYTES, turns=tiles_each > 1)
    macros = tiling.macros(structure, x, aligned=aligned(batch, x, grad))
    launch = Launch((tiling.row_blocks(structure.rows), parts), tiling.threads, shared_bytes)
    sums = x.new_empty(parts, nnz, dtype=torch.float32)
    tensors = (structure.pointers, structure.indices, grad, x, sums)
    _compile.run("sampled.cu", macros, launch, *tensors, structure.rows, columns, batch, slab, tiles_each, nnz)
    return (sums[0] if parts == 1 else sums.sum(0)).to(x.dtype)


def default_tiling(structure: Structure, x: Tensor) -> Tiling:
    """Return the tiling that is estimated to be fastest for x [columns, batch]."""
    return fastest(
        CANDIDATES,
        lambda one: estimated(one, structure, x, STAGED_BYTES, tiles_each=_tiles_each(one, structure, x)),
    )


def _tiles_each(tiling: Tiling, structure: Structure, x: Tensor) -> int:
    """Return how many tiles of the batch a block takes: as many as leave two blocks for each place of a multiprocessor."""
    tiles, blocks = -(-x.shape[1] // tiling.tile(x.dtype)), tiling.row_blocks(structure.rows)
    return max(1, tiles * blocks // (2 * tiling.blocks * _tiling.multiprocessors(x.device)))
