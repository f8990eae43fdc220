"""How a block-sparse product is cut into programs of a GPU: what is chosen for a size, a batch and a number type."""

from functools import cache
from typing import NamedTuple

import torch

from sparse_models.kernels.cuda._card import H100

EXACT = "tf32x3"  # float32 of all bits: three products of TensorFloat-32, as Triton names them
SIZES = (
    16,
    32,
    64,
    128,
)  # of blocks: tensor cores take no smaller tile, and a larger one's sums do not fit a program's registers
DEPTHS = {torch.float32: 32, torch.float16: 64, torch.bfloat16: 64}  # 128 bytes of each row: a line of the second cache


class Plan(NamedTuple):
    """A tile of a product: samples (or blocks, for a weight gradient), the depth of one step, and how it is run."""

    rows: int
    depth: int
    warps: int
    stages: int
    by_tma: bool = False


@cache
def product_plan(
    size: int, batch: int, dtype: torch.dtype, precision: str, *, has_tma: bool, shared_bytes: int = H100.shared_bytes
) -> Plan:
    """Return the plan of x times a matrix of blocks, whose tile is `rows` samples times one block's `size` outputs.

    Not measured in this form: prototypes of it were fastest so on an H200, for 4,096 samples. Fewer take fewer rows. On a card
    with less shared memory for a program than it has, fewer steps are under way, or tiles are smaller.
    """
    wide = dtype != torch.float32
    most = (256 if size <= 64 else 128) if wide else (64 if precision == EXACT and size > 64 else 128)
    rows = min(most, max(16, 1 << (batch - 1).bit_length()))
    # The memory accelerator copies boxes: a step's depth must be a block, and not parts of several.
    by_tma = has_tma and wide and size == DEPTHS[dtype] and rows >= 64
    depth, stages = DEPTHS[dtype], 4 if wide else 3
    while stages * depth * (rows + size) * dtype.itemsize > shared_bytes and (stages > 2 or rows > 16):
        stages, rows = (stages - 1, rows) if stages > 2 else (stages, rows // 2)
    return Plan(rows, depth, _warps(rows * size, precision), stages, by_tma)


@cache
def sampled_plan(size: int, dtype: torch.dtype, precision: str) -> Plan:
    """Return the plan of a weight gradient, whose tile is `rows` blocks of a row of blocks: 128 columns, or one block."""
    rows = max(1, 128 // size)
    return Plan(rows, DEPTHS[dtype], _warps(rows * size * size, precision), 3)


def product_plans(
    size: int, batch: int, dtype: torch.dtype, precision: str, *, has_tma: bool, shared_bytes: int = H100.shared_bytes
) -> list[Plan]:
    """Return the plans of a product that are worth measuring: `product_plan`, and others that fit where it does."""
    first = product_plan(size, batch, dtype, precision, has_tma=has_tma, shared_bytes=shared_bytes)
    half = max(16, first.rows // 2)
    others = [  # each with no more under way, nor more sums, than the first
        first._replace(by_tma=not first.by_tma and has_tma and first.depth == size and dtype != torch.float32),
        first._replace(rows=half, warps=_warps(half * size, precision)),
        first._replace(warps=12 - first.warps),
        first._replace(stages=first.stages - 1),
    ]
    return list(dict.fromkeys([first, *(plan for plan in others if plan.stages > 1)]))


def sampled_plans(size: int, dtype: torch.dtype, precision: str, shared_bytes: int = H100.shared_bytes) -> list[Plan]:
    """Return the plans of a weight gradient that are worth measuring: `sampled_plan`, and others that fit."""
    first = sampled_plan(size, dtype, precision)
    counts = 2 * first.rows, max(1, first.rows // 2)
    others = [first._replace(rows=count, warps=_warps(count * size * size, precision)) for count in counts]
    others += [first._replace(stages=4), first._replace(stages=2)]

    def fits(plan: Plan) -> bool:
        return plan.stages * plan.depth * (plan.rows + 1) * size * dtype.itemsize <= shared_bytes

    return list(dict.fromkeys([first, *filter(fits, others)]))


def _warps(sums: int, precision: str) -> int:
    """Return how many warps hold so many sums of a tile: 3 products of TensorFloat-32 need registers for their factors, too."""
    return 8 if sums >= (2**13 if precision == EXACT else 2**14) else 4


def parts_of(programs: int, batch: int, multiprocessors: int) -> int:
    """Return into how many parts of at least 512 samples a weight gradient's batch is cut, so that no multiprocessor idles."""
    return max(1, min(batch // 512, multiprocessors // max(1, programs)))
