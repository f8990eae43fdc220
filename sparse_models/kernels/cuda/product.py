"""A sparse matrix times feature-major activations on a GPU: what sparse_models.kernels.cpu.tiled.product means."""

from functools import lru_cache

from torch import Tensor

from sparse_models.kernels.cuda import _compile, _race
from sparse_models.kernels.cuda._compile import Launch
from sparse_models.kernels.cuda._tiling import Costs, Tiling, Work, aligned, best, estimated, work_of
from sparse_models.kernels.cuda.gathered import gathered
from sparse_models.kernels.structure import Structure

STAGED_BYTES = 2 * 32 * 8  # of a warp: two times 32 pairs of a value and a place
COSTS = Costs(segment=15, chunk=12.5, latency=573, chunk_latency=28, unfilled=5.7, copied=71, begun=1743, half=0.53)
FEW_ROWS = 64  # that are worth fewer than 4 rows for each warp: above, those were slower on an H100 than is estimated
_SHAPES = [
    *(Tiling(16, 1, rows) for rows in (16, 8, 2, 1)),
    *(Tiling(32, 1, rows) for rows in (16, 8, 4, 2, 1)),
    *(Tiling(8, 1, rows) for rows in (8, 4, 2, 1)),
    *(Tiling(group, 2, 4) for group in (16, 8)),
    *(Tiling(group, 2, 8, threads=384) for group in (16, 8)),
    *(Tiling(group, 1, rows, blocks=2) for group in (16, 32, 8) for rows in (8, 4)),
    Tiling(16, 1, 8, threads=1024),
]
CANDIDATES = [shape._replace(cuts=cuts) for shape in _SHAPES for cuts in (1, 2, 4)]


def product(
    structure: Structure,
    values: Tensor,
    x: Tensor,
    bias: Tensor | None = None,
    *,
    relu: bool = False,
    passed: Tensor | None = None,
    order: Tensor | None = None,
    tiling: Tiling | None = None,
    parts: int | None = None,
) -> Tensor:
    """Return the matrix that holds `values` [nnz] times x [columns, batch], plus bias [rows]: [rows, batch], all contiguous.

    With `relu`, what is below 0 becomes 0; with `passed` [rows, batch], ReLU's results, so does what ReLU's gradient stops.
    With `order` [nnz], the matrix holds values[order], as a transpose does. The batch is cut into parts, whose tiles a block
    takes one after the other.
    """
    rows, (columns, batch) = structure.rows, x.shape
    result = x.new_empty(rows, batch)
    if rows == 0 or batch == 0:
        return result
    work = work_of(structure, x)
    if tiling is None:
        kernel = "sparse product" if order is None else "transposed sparse product"
        tiling = _race.chosen(
            kernel, (columns, rows), batch, work.nnz, x, lambda: best_tilings(work),
            lambda one: product(structure, values, x, bias, relu=relu, passed=passed, order=order, tiling=one, parts=parts),
        )  # fmt: skip
    tiles_each = tiling.tiles_each(work, parts or default_parts(tiling, work))
    slab, shared_bytes = tiling.slab(columns, STAGED_BYTES, turns=tiles_each > 1, most=work.shared_bytes)
    macros = tiling.macros(structure, x, aligned=aligned(batch, x, result, passed))
    overlaps = order is not None and len(order) > 0  # what comes before is then the gathering, behind all that wrote x
    if order is not None and overlaps:
        # In the kernel a value would be gathered anew for each tile, and 32 places of a warp are 32 sectors of the second
        # cache: about what multiplying them takes. So it is once, before, in the shade of the first slab's copies.
        values = gathered(values, order)
    grid = tiling.row_blocks(rows), -(-tiling.tiles(work) // tiles_each)
    launch = Launch(grid, tiling.threads, shared_bytes, overlapped=overlaps)
    tensors = (structure.pointers, structure.indices, values, x, bias, passed, result)
    _compile.run("product.cu", macros, launch, *tensors, rows, columns, batch, slab, tiles_each, int(relu))
    return result


@lru_cache(maxsize=1024)
def best_tilings(work: Work) -> list[Tiling]:
    """Return the tilings that are estimated to be fastest, the fastest first."""
    wide = 4 // work.number_bytes  # a lane has as many sums of a row as numbers fit into 16 bytes
    few = work.rows < FEW_ROWS
    fitting = [one for one in CANDIDATES if has_registers(one, wide) and (few or one.rows >= 4)]
    clocks = {one: estimated(one, work, STAGED_BYTES, default_parts(one, work), COSTS) for one in fitting}
    return best(clocks, work, STAGED_BYTES)


def has_registers(tiling: Tiling, wide: int) -> bool:
    """Tell whether a tiling's sums, 4 times `wide` of a piece, fill half of the registers at most, and are kept there.

    NVRTC 13.0, for compute capability 8.0, 9.0, 10.0 and 12.0, keeps 120 to 256 bytes of a thread's sums in memory where they
    are more; and, for the first two, all of them where two pieces of 16-bit numbers have 4 rows.
    """
    return tiling.rows * tiling.pieces * wide * tiling.threads * tiling.blocks <= 2**13 and tiling.pieces * wide <= 2


@lru_cache(maxsize=1024)
def default_parts(tiling: Tiling, work: Work) -> int:
    """Return into how many parts the batch is best cut: blocks for all multiprocessors, each with as many tiles."""
    options = range(1, tiling.most_parts(work) + 1)
    return min(options, key=lambda parts: estimated(tiling, work, STAGED_BYTES, parts, COSTS))
