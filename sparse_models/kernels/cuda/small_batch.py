"""A sparse matrix in chunks and activations of 1 to 16 in, their product out, on a GPU; bound by the matrix's bytes."""

from collections.abc import Iterator
from itertools import cycle
from typing import NamedTuple

import torch
from torch import Tensor

from sparse_models.errors import InputError
from sparse_models.kernels.cuda import _card, _compile, _race
from sparse_models.kernels.cuda._card import H100, RESERVED_BYTES, Card
from sparse_models.kernels.cuda._chunks import COUNTERS, Form, Packed, pack, refill
from sparse_models.kernels.cuda._compile import Launch

__all__ = ["LARGEST_BATCH", "Form", "Packed", "Plan", "form_for", "pack", "plan_for", "product", "refill", "rule"]

LARGEST_BATCH = 16
BEYOND = 64  # columns of zeros behind x: where the zeros that fill up a chunk may point
CACHES, MOST_COPIES = 2, 64  # of weights that race plans in turns, so that they are as cold as a large model has them
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


def form_for(columns: int, dtype: torch.dtype, batch: int, card: Card = H100) -> Form:
    """Return the form for a matrix of so many columns and a batch: the fewest slabs of which each, of x, fits a block."""
    # On an H100 bfloat16 takes 8 to 22 % less time on CUDA cores than on tensor cores at batches 1 and 2. Two slabs where one
    # does take 11 to 24 % more at 4096 columns, and at 14336 from 4 % less to 12 % more.
    matrix = dtype.itemsize == 2 and batch > 2
    most = card.shared_bytes // _bytes_a_column(_columns(batch, matrix=matrix), matrix=matrix) - BEYOND
    return Form(matrix, max(1, -(-columns // (most // 16 * 16))))


def rule(packed: Packed, batch: int, card: Card = H100) -> Plan:
    """Return a plan for a batch by the sizes alone: on an H100 within some percent of the fastest that was measured."""
    columns = _fitting(packed, batch, card)
    size, rows = packed.values.element_size(), packed.rows * packed.slabs
    # Two short rows a warp, where each has many: sums are gathered across lanes, and written, half as often.
    short = packed.chunks < 128 * rows and rows >= 4 * 16 * card.multiprocessors
    if columns == 16:  # sums in registers leave room for few threads
        return Plan(columns, 16, 3, 384, fit=1) if short else Plan(columns, fit=1)
    if not packed.matrix and columns >= 4:
        return Plan(columns, 16, fit=1)
    twice = (
        3 * (shared_bytes(packed, columns) + RESERVED_BYTES) <= card.shared_bytes + RESERVED_BYTES
    )  # two blocks, and one of the next kernel
    if packed.matrix and twice and short and columns < 8:
        return Plan(columns, 16, blocks=2)
    read = packed.bytes_read / card.multiprocessors
    if not packed.matrix and twice and read > 6 * columns * packed.slab_columns * size:
        return Plan(columns, blocks=2)  # one reads weights while the other fetches x, which both must, and is small
    if read < 100_000:  # over in 7 us: there is to be room for blocks of the next kernel, that they begin early
        return Plan(columns, fit=1 if size == 4 else 2)
    return Plan(columns, threads=1024, fit=1)


def candidates(packed: Packed, batch: int, card: Card = H100) -> list[Plan]:
    """Return the plans that are worth measuring for a batch, the rule's first: the others that it has for some matrix."""
    first = rule(packed, batch, card)
    columns = first.columns
    if columns == 16:
        others = [Plan(columns, fit=1), Plan(columns, 16, 3, 384, fit=1)]
    else:
        lanes = 16 if packed.matrix else 32
        others = [Plan(columns, threads=1024, fit=1), Plan(columns, lanes, blocks=2), Plan(columns)]
    return list(dict.fromkeys([first, *others]))


def plan_for(packed: Packed, x: Tensor, bias: Tensor | None = None) -> Plan:
    """Return the plan for activations [batch, columns]: on a card the fastest, for weights that are in no cache."""
    batch, card = len(x), _card.card_of(x.device)
    turns = list[Iterator[Packed]]()

    def call(plan: Plan) -> Tensor:
        if not turns:
            turns.append(cycle(_copies(packed)))
        return product(next(turns[0]), x, bias, plan)

    form = f"few samples (matrix={int(packed.matrix)}, slabs={packed.slabs}, width={packed.width})"
    power = 1 << (batch - 1).bit_length()
    plan = _race.chosen(
        form, (packed.columns, packed.rows), power, len(packed.slots), x, lambda: candidates(packed, batch, card), call
    )
    return plan._replace(columns=_fitting(packed, batch, card))


def _copies(packed: Packed) -> list[Packed]:
    """Return the matrix and as many copies as no cache of its card holds, nor half of what its memory has room for."""
    copies, device = [packed], packed.values.device
    room = min(CACHES * _card.cache_bytes(device), _card.free_bytes(device) // 2)
    try:
        for _ in range(min(MOST_COPIES, room // packed.bytes_read)):
            values, words, pointers = (part.clone() for part in (packed.values, packed.words, packed.pointers))
            firsts = None if packed.firsts is None else packed.firsts.clone()
            copies.append(packed._replace(values=values, words=words, firsts=firsts, pointers=pointers))
    except torch.OutOfMemoryError:  # it lies in pieces, or others have taken it: the results need some, too
        del copies[1:]
    if packed.values.is_cuda:  # an overlapped kernel reads weights before the one that wrote them is known to have ended
        torch.cuda.current_stream(device).synchronize()
    return copies


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
    card = _card.card_of(x.device)
    plan = plan or plan_for(packed, x, bias)
    launch, passes = _launch(packed, batch, plan, card)
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
    return (packed.slab_columns + BEYOND) * _bytes_a_column(columns, matrix=packed.matrix)


def _fitting(packed: Packed, batch: int, card: Card) -> int:
    """Return the batch columns a pass, fewer where a form for a smaller batch leaves no room for more."""
    columns = _columns(batch, matrix=packed.matrix)
    while columns > 1 and shared_bytes(packed, columns) > card.shared_bytes:
        columns //= 2
    return columns


def _bytes_a_column(columns: int, *, matrix: bool) -> int:
    """Return the bytes of a column of x in shared memory."""
    return 16 * -(-columns // 8) if matrix else 4 * columns


def _columns(batch: int, *, matrix: bool) -> int:
    """Return the batch columns a pass: without tensor cores at most 8, for more than that the gathers do not keep up."""
    return min(next(size for size in (1, 2, 4, 8, 16) if size >= batch), 16 if matrix else 8)


def _launch(packed: Packed, batch: int, plan: Plan, card: Card) -> tuple[Launch, int]:
    """Return the launch and its passes over the batch."""
    passes = -(-batch // plan.columns)
    shared = shared_bytes(packed, plan.columns)
    if shared > card.shared_bytes:
        raise InputError(
            f"expected a slab of x within {card.shared_bytes} bytes, got {shared}; pack in more slabs or plan fewer columns"
        )
    rows_a_block = plan.threads // plan.lanes
    blocks = min(-(-packed.rows // rows_a_block), max(1, card.multiprocessors * plan.blocks // (packed.slabs * passes)))
    if packed.slabs > 1 and blocks * passes > COUNTERS:
        raise InputError(f"expected at most {COUNTERS} blocks for each slab, got {blocks * passes}; plan fewer")
    return Launch((blocks, packed.slabs * passes), plan.threads, shared, plan.overlapped), passes
