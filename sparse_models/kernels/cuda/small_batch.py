"""A sparse matrix in chunks and activations of 1 to 16 in, their product out, on a GPU; bound by the matrix's bytes."""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from sparse_models.errors import InputError
from sparse_models.kernels.cuda import _compile
from sparse_models.kernels.cuda._chunks import COUNTERS, Form, Packed, pack, refill
from sparse_models.kernels.cuda._compile import Launch

__all__ = ["LARGEST_BATCH", "Form", "Packed", "Plan", "pack", "product", "refill", "rule"]

LARGEST_BATCH = 16
MOST_SHARED = 227 * 1024  # bytes of shared memory a block of a Hopper card can have
BEYOND = 64  # columns of zeros behind x: where the zeros that fill up a chunk may point
FILE = "small_batch.cu"
TYPES = {torch.float32: "Float32", torch.float16: "Float16", torch.bfloat16: "Bfloat16"}


class Plan(NamedTuple):
    """How a product is launched.

    Batch columns a pass; lanes a row (8, 16, 32); chunks that a lane has in flight; threads a block; blocks launched for each
    multiprocessor; how many of these are to fit one by their registers, this launch's and the next's; whether it overlaps the
    kernel before, which must then not be the one that wrote the weights.
    """

    columns: int
    lanes: int = 32
    depth: int = 2
    threads: int = 512
    blocks: int = 1
    fit: int = 2
    overlapped: bool = True


def rule(packed: Packed, batch: int) -> Plan:
    """Return a plan for a batch by the sizes alone."""
    columns = next(size for size in (1, 2, 4, 8, 16) if size >= batch)
    if not packed.matrix:
        columns = min(columns, 8)  # more pieces of x than the gathers keep up with
    lanes = 32 if packed.chunks >= 96 * packed.rows * packed.slabs else 16
    large = columns == 16 or (not packed.matrix and columns == 8)  # sums and x in registers
    shared = shared_bytes(packed, columns)
    blocks = max(1, min(packed.slabs, 2)) if 2 * (shared + 1024) <= MOST_SHARED + 1024 else 1
    return Plan(columns, lanes, threads=256 if large else 512, blocks=blocks)


def product(packed: Packed, x: Tensor, bias: Tensor | None = None, plan: Plan | None = None) -> Tensor:
    """Return x [batch, columns] times the packed matrix transposed, plus bias [rows]: [batch, rows], sums in float32."""
    batch = x.shape[0]
    if x.dtype != packed.values.dtype or not x.is_contiguous() or batch > LARGEST_BATCH or x.shape[1] != packed.columns:
        raise InputError(
            f"expected contiguous activations [at most {LARGEST_BATCH}, {packed.columns}] in {packed.values.dtype}, got "
            f"{list(x.shape)} in {x.dtype}; larger batches have another kernel"
        )
    y = x.new_empty(batch, packed.rows)
    if y.numel() == 0:
        return y
    plan = plan or rule(packed, batch)
    launch, passes = _launch(packed, batch, plan, multiprocessors(x.device))
    partial = None
    if packed.slabs > 1:
        partial = x.new_empty(passes * packed.slabs * packed.rows * plan.columns, dtype=torch.float32)
    _compile.run(
        FILE, macros(packed, plan), launch, packed.values, packed.words, packed.firsts, packed.pointers, x, bias, y, partial,
        packed.counters, packed.rows, packed.columns, batch, packed.slabs, packed.slab_columns, packed.chunks,
    )  # fmt: skip
    return y


def macros(packed: Packed, plan: Plan) -> _compile.Macros:
    """Return what the kernel is compiled for."""
    form = (("VALUE", TYPES[packed.values.dtype]), ("MATRIX", int(packed.matrix)), ("WIDTH", packed.width))
    size = (("COLUMNS", plan.columns), ("LANES", plan.lanes), ("DEPTH", plan.depth))
    return (*form, *size, ("THREADS", plan.threads), ("BLOCKS", plan.fit))


def shared_bytes(packed: Packed, columns: int) -> int:
    """Return the bytes of shared memory that a block needs for a slab of x at so many batch columns a pass."""
    return (packed.slab_columns + BEYOND) * (16 * -(-columns // 8) if packed.matrix else 4 * columns)


def _launch(packed: Packed, batch: int, plan: Plan, multiprocessors: int) -> tuple[Launch, int]:
    """Return the launch and its passes over the batch."""
    passes = -(-batch // plan.columns)
    shared = shared_bytes(packed, plan.columns)
    if shared > MOST_SHARED:
        raise InputError(
            f"expected a slab of x within {MOST_SHARED} bytes, got {shared}; pack in more slabs or plan fewer columns"
        )
    rows_a_block = plan.threads // plan.lanes
    blocks = min(-(-packed.rows // rows_a_block), max(1, multiprocessors * plan.blocks // (packed.slabs * passes)))
    if packed.slabs > 1 and blocks * passes > COUNTERS:
        raise InputError(f"expected at most {COUNTERS} blocks for each slab, got {blocks * passes}; plan fewer")
    return Launch((blocks, packed.slabs * passes), plan.threads, shared, plan.overlapped), passes


@cache
def multiprocessors(device: torch.device) -> int:
    """Return how many multiprocessors a card has."""
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
