"""The gradient of a sparse matrix's values on a GPU: what sparse_models.kernels.cpu.tiled.sampled means."""

from functools import lru_cache

import torch
from torch import Tensor

from sparse_models.kernels.cuda import _compile, _race
from sparse_models.kernels.cuda._compile import Launch
from sparse_models.kernels.cuda._tiling import Costs, Tiling, Work, aligned, best, estimated, work_of
from sparse_models.kernels.structure import Structure

STAGED_BYTES = 2 * 32 * 4  # of a warp: two times 32 places
COSTS = Costs(segment=59, chunk=13.7, latency=150, chunk_latency=30, unfilled=0.7, copied=33, begun=448, half=0.59)
ALIGNED = 8  # numbers, of 2 bytes, between which what is loaded 16 bytes at a time begins
ADDING_CLOCKS = 5230  # of a kernel that adds the parts, however few they are, on an H100
ADDED_RATE = 42  # bytes of them, written and read, that a multiprocessor has a clock
_SHAPES = [
    *(Tiling(8, pieces, rows) for pieces in (2, 4) for rows in (16, 8, 4, 2, 1)),
    *(Tiling(8, 1, rows) for rows in (16, 4, 1)),
    *(Tiling(8, pieces, 8, threads=384) for pieces in (2, 4)),
    *(Tiling(8, pieces, rows, buffers=1) for pieces in (2, 4) for rows in (32, 16, 8)),
]
CANDIDATES = [shape._replace(cuts=cuts) for shape in _SHAPES for cuts in (1, 2, 4)]


def sampled(structure: Structure, grad: Tensor, x: Tensor, *, tiling: Tiling | None = None, parts: int | None = None) -> Tensor:
    """Return, at the non-zeros alone [nnz], grad [rows, batch] times x [columns, batch] transposed, all contiguous.

    The batch is cut into parts, added in their order: for a tiling and a number of parts the result is always the same.
    """
    return sampled_and_summed(structure, grad, x, tiling=tiling, parts=parts, has_sums=False)[0]


def sampled_and_summed(
    structure: Structure,
    grad: Tensor,
    x: Tensor,
    *,
    tiling: Tiling | None = None,
    parts: int | None = None,
    has_sums: bool = True,
) -> tuple[Tensor, Tensor]:
    """Return what `sampled` does, and the sums of grad's rows [rows], if they are wanted: a bias's gradient."""
    (columns, batch), rows, nnz = x.shape, structure.rows, len(structure.indices)
    if batch == 0 or nnz == 0:
        return x.new_zeros(nnz), grad.sum(1)
    work = work_of(structure, x)
    tiling = tiling or _race.chosen(
        "sparse gradient", (columns, rows), batch, nnz, x, lambda: best_tilings(work),
        lambda one: sampled_and_summed(structure, grad, x, tiling=one, parts=parts, has_sums=has_sums),
    )  # fmt: skip
    tiles_each = tiling.tiles_each(work, parts or default_parts(tiling, work))
    parts = -(-tiling.tiles(work) // tiles_each)
    slab, shared_bytes = tiling.slab(columns, STAGED_BYTES, turns=tiles_each > 1, most=work.shared_bytes)
    macros = tiling.macros(structure, x, aligned=aligned(batch, x, grad))
    launch = Launch((tiling.row_blocks(rows), parts), tiling.threads, shared_bytes)
    # Side by side, so that the parts of both are added, and rounded, by one kernel.
    row_sums_at = -(-nnz // ALIGNED) * ALIGNED
    count = row_sums_at + rows if has_sums else nnz
    sums = x.new_empty(parts, count, dtype=torch.float32)
    tensors = (structure.pointers, structure.indices, grad, x, sums)
    sizes = (rows, columns, batch, row_sums_at if has_sums else -1, slab, tiles_each, count)
    _compile.run("sampled.cu", macros, launch, *tensors, *sizes)
    found = (sums[0] if parts == 1 else sums.sum(0)).to(x.dtype)
    return found[:nnz], found[row_sums_at:]


@lru_cache(maxsize=1024)
def best_tilings(work: Work) -> list[Tiling]:
    """Return the tilings that are estimated to be fastest, the fastest first, with as many parts of the batch likewise."""
    fitting = [one for one in CANDIDATES if one.pieces * 4 // work.number_bytes <= 4]  # numbers of a lane, which are registers
    return best({one: _clocks(one, work, default_parts(one, work)) for one in fitting}, work, STAGED_BYTES)


@lru_cache(maxsize=1024)
def default_parts(tiling: Tiling, work: Work) -> int:
    """Return into how many parts the batch is best cut: blocks for all multiprocessors, and few sums to be added."""
    return min(range(1, tiling.most_parts(work) + 1), key=lambda parts: _clocks(tiling, work, parts))


def _clocks(tiling: Tiling, work: Work, parts: int) -> float:
    clocks = estimated(tiling, work, STAGED_BYTES, parts, COSTS)
    written = parts * work.nnz * 8 / (ADDED_RATE * work.multiprocessors)  # and read again
    return clocks if parts == 1 else clocks + written + ADDING_CLOCKS
