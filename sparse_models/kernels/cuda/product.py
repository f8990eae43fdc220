"""A sparse matrix times feature-major activations on a GPU: what sparse_models.kernels.tiled.product means."""

import torch
from torch import Tensor

from sparse_models.kernels.cuda import _compile
from sparse_models.kernels.cuda._compile import Launch
from sparse_models.kernels.cuda._tiling import Tiling, aligned, estimated, fastest
from sparse_models.kernels.structure import Structure

STAGED_BYTES = 2 * 32 * 8  # of a warp: two times 32 pairs of a value and a place
CANDIDATES = [
    Tiling(group, pieces, rows, cuts=cuts)
    for group, pieces in ((16, 1), (32, 1), (8, 1))
    for rows in (16, 8, 4, 2, 1)
    for cuts in (1, 2, 4)
]


def product(
    structure: Structure,
    values: Tensor,
    x: Tensor,
    bias: Tensor | None = None,
    *,
    relu: bool = False,
    passed: Tensor | None = None,
    tiling: Tiling | None = None,
) -> Tensor:
    """Return the matrix that holds `values` [nnz] times x [columns, batch], plus bias [rows]: [rows, batch], all contiguous.

    With `relu`, what is below 0 becomes 0; with `passed` [rows, batch], ReLU's results, so does what ReLU's gradient stops.
    """
    rows, (columns, batch) = structure.rows, x.shape
    result = x.new_empty(rows, batch)
    if rows == 0 or batch == 0:
        return result
    tiling = tiling or default_tiling(structure, x)
    slab, shared_bytes = tiling.slab(columns, STAGED_BYTES)
    macros = tiling.macros(structure, x, aligned=aligned(batch, x, result, passed))
    launch = Launch((tiling.row_blocks(rows), -(-batch // tiling.tile(x.dtype))), tiling.threads, shared_bytes)
    tensors = (structure.pointers, structure.indices, values, x, bias, passed, result)
    _compile.run("product.cu", macros, launch, *tensors, rows, columns, batch, slab, int(relu))
    return result


def default_tiling(structure: Structure, x: Tensor) -> Tiling:
    """Return the tiling that is estimated to be fastest for x [columns, batch]."""
    wide = x.dtype != torch.float32  # a lane has as many sums as numbers fit into 16 bytes
    fitting = [one for one in CANDIDATES if one.rows * (2 if wide else 1) <= 16]
    return fastest(fitting, lambda one: estimated(one, structure, x, STAGED_BYTES))
