"""Products of a sparse matrix with feature-major activations, a tile of the batch at a time.

A tile is a piece of the batch as wide as some vectors. Its rows are packed one after the other, a panel of them at a time, so
that they stay in the first cache whatever the batch is. Then, for each output, its non-zeros in a panel are walked: a value is
spread over a vector, multiplied with the tile's row of its column, and added to sums that stay in registers.
"""

import math
from collections.abc import Callable
from functools import lru_cache, partial, reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sparse_models.kernels.candidates import chosen
from sparse_models.kernels.cpu._arithmetic import name_of
from sparse_models.kernels.cpu._compile import kernel
from sparse_models.kernels.cpu._emit import CACHE_LINE
from sparse_models.kernels.cpu._team import run
from sparse_models.kernels.cpu._tile import TASKS_PER_THREAD, Piece, Sums, add_to, emitter_for, of_bias, tile_and_block, tiling
from sparse_models.kernels.cpu.csr._form import ARRAYS, NUMBERS, CsrForm
from sparse_models.kernels.cpu.csr._panels import Panel, panel_columns
from sparse_models.kernels.cpu.csr._single import single, single_sampled
from sparse_models.kernels.cpu.permute import permuted
from sparse_models.kernels.structure import Sizes, Structure
from sparse_models.kernels.variant import Variant

TILES_PER_PART = 8  # of a batch, at least: each part has sums of its own to be written and added up
KEPT_BYTES = 2**18  # of the second cache, for what rows have come to between panels
MOST_ORDERED = 4  # tiles, above which it takes less time to put values in order once than to look each up in each tile


def define_product(
    structure: Structure, values: Tensor, x: Tensor, bias: Tensor | None, *, relu: bool = False, passed: Tensor | None = None
) -> Tensor:
    """Return the matrix times x [columns, batch], plus bias [rows]: what `product` means."""
    result = x.new_zeros(structure.rows, x.shape[1]) if bias is None else bias[:, None].repeat(1, x.shape[1])
    for row in range(structure.rows):
        for place in range(int(structure.pointers[row]), int(structure.pointers[row + 1])):
            result[row] += values[place] * x[int(structure.indices[place])]
    return finished(result, relu=relu, passed=passed)


def finished(result: Tensor, *, relu: bool, passed: Tensor | None) -> Tensor:
    """Return a product [rows, batch], changed in place, after ReLU or its gradient; see `product`."""
    if relu:
        result.relu_()
    return result if passed is None else result.masked_fill_(passed <= 0, 0)


def product(
    structure: Structure,
    values: Tensor,
    x: Tensor,
    bias: Tensor | None = None,
    *,
    relu: bool = False,
    passed: Tensor | None = None,
    order: Tensor | None = None,
    variant: Variant | None = None,
) -> Tensor:
    """Return the matrix that holds `values` [nnz] times x [columns, batch], plus bias [rows]: [rows, batch], all contiguous.

    With `order` [nnz], of 32 bit, it holds values[order]. With `relu`, what is below 0 becomes 0; with `passed` [rows, batch],
    ReLU's results, so does what ReLU's gradient stops. Values may be in 16 bit where the rest is in float32.
    """
    sizes, batch = structure.sizes, x.shape[1]
    result = x.new_empty(sizes.rows, batch)
    if batch == 0:
        return result
    dtype = name_of(x.dtype)
    if values.dtype != x.dtype and (batch == 1 or order is not None):
        values = values.to(x.dtype)
    if variant is None:
        again = partial(product, structure, values, x, bias, relu=relu, passed=passed, order=order)
        variant = chosen("product", structure, x, again)
    if batch == 1:
        team, values = variant.threads, values if order is None else permuted(values, order)
        arrays = (structure.pointers, structure.indices, values, x, result)
        run(single(dtype, sizes.index_bytes), (*arrays, *of_bias(bias), sizes.rows, team), team)
        return finished(result, relu=relu, passed=passed)
    plan = _plan(sizes, batch, dtype, variant)
    if order is not None and plan.parts > MOST_ORDERED:
        values, order = permuted(values, order), None
    short = "" if values.dtype == x.dtype else name_of(values.dtype)
    form = plan.form if order is None and not short else plan.form._replace(is_ordered=order is not None, short=short)
    scratch = x.new_empty(plan.scratch_bytes, dtype=torch.uint8)
    tensors = (*form.arrays(structure), values if order is None else order, values, x, result, scratch)
    function = _product(dtype, plan.chunks, variant.vector_bytes, form, relu=relu, has_passed=passed is not None)
    run(function, (*tensors, result if passed is None else passed, *of_bias(bias), *plan.numbers), plan.team)
    return result


def define_sampled(structure: Structure, grad: Tensor, x: Tensor) -> Tensor:
    """Return grad [rows, batch] times x [columns, batch] transposed, at the non-zeros [nnz]: what `sampled` means."""
    rows = torch.repeat_interleave(torch.arange(structure.rows, device=x.device), structure.pointers.diff())
    return (grad[rows] * x[structure.indices.long()]).sum(1)


def sampled(structure: Structure, grad: Tensor, x: Tensor, variant: Variant | None = None) -> Tensor:
    """Return, at the non-zeros alone [nnz], grad [rows, batch] times x [columns, batch] transposed, all contiguous.

    The batch is cut into as many parts as there are tasks, whoever takes them, and the parts are added in their order: for a
    number of threads the result is always the same.
    """
    return sampled_and_summed(structure, grad, x, variant, has_sums=False)[0]


def sampled_and_summed(
    structure: Structure, grad: Tensor, x: Tensor, variant: Variant | None = None, *, has_sums: bool = True
) -> tuple[Tensor, Tensor]:
    """Return what `sampled` does, and the sums of grad's rows [rows], if they are wanted: a bias's gradient."""
    sizes, batch = structure.sizes, x.shape[1]
    if batch == 0 or sizes.nnz == 0:
        return x.new_zeros(sizes.nnz), grad.sum(1)
    dtype = name_of(x.dtype)
    if variant is None:
        variant = chosen("sampled", structure, x, partial(sampled, structure, grad, x))
    if batch == 1:
        blocks, team = row_blocks(sizes.rows, 1, variant.threads)
        sums = x.new_empty(sizes.nnz)
        arrays = (structure.pointers, structure.indices, grad, x, sums)
        run(single_sampled(dtype, sizes.index_bytes), [*arrays, sizes.rows, blocks], team)
        return sums, grad.sum(1)
    plan = _plan(sizes, batch, dtype, variant, tiles_per_part=TILES_PER_PART)
    sums, row_sums = (x.new_empty(plan.parts, count) for count in (sizes.nnz, sizes.rows * has_sums))
    scratch = x.new_empty(plan.scratch_bytes, dtype=torch.uint8)
    function = _sampled(dtype, plan.chunks, variant.vector_bytes, plan.form, has_sums=has_sums)
    run(function, (*plan.form.arrays(structure), sums, sums, row_sums, x, grad, scratch, *plan.numbers), plan.team)
    return (sums[0], row_sums[0]) if plan.parts == 1 else (sums.sum(0), row_sums.sum(0))


def tile_bytes(kernel: str, structure: Structure, x: Tensor) -> int:
    """Return the bytes of the packed rows that a "product" or "sampled" product with x [columns, batch] loads vectors from."""
    variant = chosen(kernel, structure, x, None)
    chunks, _ = tiling(x.shape[1], name_of(x.dtype), variant.vectors, variant.vector_bytes)
    return panel_columns(structure.sizes, chunks, variant) * chunks * variant.vector_bytes


class Plan(NamedTuple):
    """How a product of some sizes goes about its work; what its kernel is told of that are `numbers`."""

    form: CsrForm
    chunks: int  # vectors in a tile
    parts: int  # of the batch, some tiles each
    team: int
    scratch_bytes: int
    numbers: tuple[int, ...]


@lru_cache(maxsize=2**10)  # to find it all anew takes as long as a small product
def _plan(sizes: Sizes, batch: int, dtype: str, variant: Variant, tiles_per_part: int = 0) -> Plan:
    """Return the plan of a product: parts are as many as tiles, or fewer and whoever takes them the same."""
    chunks, tiles = tiling(batch, dtype, variant.vectors, variant.vector_bytes)
    parts = min(max(1, tiles // tiles_per_part), TASKS_PER_THREAD * variant.threads) if tiles_per_part else tiles
    form, row_bytes = CsrForm.of(sizes, chunks, variant), chunks * variant.vector_bytes
    blocks, team = row_blocks(sizes.rows, parts, variant.threads)
    if not (form.is_whole or tiles_per_part):  # so many blocks more as leave every thread as much to do
        blocks = max(blocks, min(sizes.rows, -(-sizes.rows * row_bytes // (KEPT_BYTES * team)) * team))
    panel_bytes = panel_columns(sizes, chunks, variant) * row_bytes
    # For each thread a tile of a panel's columns, and one of its rows' sums between panels, with room to begin at a cache line.
    own_bytes = panel_bytes + (0 if form.is_whole or tiles_per_part else -(-sizes.rows // blocks) * row_bytes) + CACHE_LINE
    numbers = (sizes.rows, sizes.columns, sizes.nnz, batch, tiles, parts, blocks, panel_bytes, own_bytes)
    return Plan(form, chunks, parts, team, team * own_bytes, (*numbers, *form.numbers(sizes, chunks, variant)))


def row_blocks(rows: int, tiles: int, team: int) -> tuple[int, int]:
    """Return into how many blocks of rows each tile's work is cut, and how many threads of a team are worth having."""
    blocks = 1 if tiles >= TASKS_PER_THREAD * team else min(rows, team // math.gcd(tiles, team))
    return blocks, min(team, tiles * blocks)


@kernel
def _product(dtype: str, chunks: int, vector_bytes: int, form: CsrForm, *, relu: bool, has_passed: bool) -> int:
    """Return the address of the kernel of `product` for tiles of so many vectors."""
    emit = emitter_for(dtype, vector_bytes)
    *arrays, values, x, result, scratch, passed, bias, bias_step = (emit.argument(place) for place in range(ARRAYS + 7))
    rows, columns, _, batch, tiles, _, blocks, panel_bytes, scratch_bytes, *numbers = (
        emit.argument(place) for place in range(ARRAYS + 7, ARRAYS + 16 + NUMBERS)
    )
    buffer, matrix = emit.own_part(scratch, scratch_bytes), form.matrix((*arrays, *numbers), values)
    with emit.tasks(emit.times(tiles, blocks)) as task:
        tile, block = tile_and_block(emit, task, tiles, blocks)
        piece = Piece(emit, tile, chunks, batch)

        def begin(row: Any) -> list[Any]:
            return [emit.splat(emit.load(emit.number, emit.add(bias, emit.times(row, bias_step))))] * chunks

        def finish(row: Any, totals: list[Any]) -> None:
            if relu:
                totals = [emit.passed(total, total) for total in totals]
            if has_passed:
                outputs = piece.read(piece.of(passed, row))
                totals = [emit.passed(*pair) for pair in zip(outputs, totals, strict=True)]
            piece.write(totals, piece.of(result, row))

        first, last = emit.share(rows, block, blocks)
        kept = emit.builder.sub(emit.add(buffer, panel_bytes), emit.times(first, chunks * emit.vector_bytes))
        sums = Sums(begin, finish, kept, chunks)
        matrix.panel_products(emit, (first, last), _packing(piece, x, columns, buffer), sums)
    return emit.compiled()


@kernel
def _sampled(dtype: str, chunks: int, vector_bytes: int, form: CsrForm, *, has_sums: bool) -> int:
    """Return the address of the kernel of `sampled_and_summed` for tiles of so many vectors."""
    emit = emitter_for(dtype, vector_bytes)
    *arrays, sums, row_sums, x, grad, scratch = (emit.argument(place) for place in range(ARRAYS + 5))
    rows, columns, nnz, batch, tiles, parts, blocks, _, scratch_bytes, *numbers = (
        emit.argument(place) for place in range(ARRAYS + 5, ARRAYS + 14 + NUMBERS)
    )
    buffer = emit.own_part(scratch, scratch_bytes)
    with emit.tasks(emit.times(parts, blocks)) as task:
        part, block = emit.divided(task, blocks)
        own_sums = emit.add(sums, emit.times(emit.times(part, nnz), emit.width))
        own_row_sums = emit.add(row_sums, emit.times(emit.times(part, rows), emit.width))
        first_tile, last_tile = emit.share(tiles, part, parts)
        with emit.loop(first_tile, last_tile) as tile:
            piece = Piece(emit, tile.place, chunks, batch)
            is_first, shared = emit.builder.icmp_signed("==", tile.place, first_tile), emit.share(rows, block, blocks)

            def held(row: Any, piece: Piece = piece) -> list[Any]:
                return piece.read(piece.of(grad, row))

            def add_up(row: Any, vectors: list[Any], at: Any = own_row_sums, is_first: Any = is_first) -> None:
                add_to(emit, emit.total(reduce(emit.plus, vectors)), emit.add(at, emit.times(row, emit.width)), is_first)

            packing, each = _packing(piece, x, columns, buffer), add_up if has_sums else None
            form.matrix((*arrays, *numbers), own_sums).panel_sampled(emit, shared, packing, held, is_first, each)
    return emit.compiled()


def _packing(piece: Piece, x: Any, columns: Any, buffer: Any) -> Callable[[Panel], Any]:
    """Return what packs a panel of x into a buffer, and says where the first of all columns would begin."""
    emit = piece.emit
    # A batch of one whole tile is packed as it is.
    is_packed = emit.builder.and_(
        emit.builder.icmp_signed("==", piece.batch, emit.constant(piece.chunks * emit.lanes)),
        emit.builder.icmp_signed("==", emit.aligned(x), x),
    )

    def pack(panel: Panel) -> Any:
        end = columns if panel.end is None else emit.least(panel.end, columns)
        piece.pack(x, panel.first, emit.builder.select(is_packed, panel.first, end), buffer)
        offset = emit.times(panel.first, piece.chunks * emit.vector_bytes)
        return emit.builder.select(is_packed, x, emit.builder.sub(buffer, offset))

    return pack
