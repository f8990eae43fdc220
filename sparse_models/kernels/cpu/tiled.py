"""Products of a sparse matrix with feature-major activations, a tile of the batch at a time.

A tile is a piece of the batch as wide as some vectors. Its rows are packed once, one after the other, so that they stay in the
caches whatever the batch is. Then, for each output, its non-zeros are walked: a value is spread over a vector, multiplied with
the tile's row of its column, and added to sums that stay in registers. One load for each multiply-add, and nothing else.
"""

import math
from functools import partial

import torch
from llvmlite import ir
from torch import Tensor

from sparse_models.kernels.candidates import chosen
from sparse_models.kernels.cpu._arithmetic import name_of
from sparse_models.kernels.cpu._compile import kernel, vector_bytes
from sparse_models.kernels.cpu._emit import CACHE_LINE, SMALL_BYTES
from sparse_models.kernels.cpu._team import run
from sparse_models.kernels.cpu._tile import CsrForm, Piece, emitter_for, of_bias, row_product, row_sampled, tiling
from sparse_models.kernels.structure import Structure
from sparse_models.kernels.variant import Variant

TILES_PER_PART = 8  # of a batch, at least: each part has sums of its own to be written and added up
TASKS_PER_THREAD = 4  # so that a thread that is held up leaves work to the others


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
    variant: Variant | None = None,
) -> Tensor:
    """Return the matrix that holds `values` [nnz] times x [columns, batch], plus bias [rows]: [rows, batch], all contiguous.

    With `relu`, what is below 0 becomes 0; with `passed` [rows, batch], ReLU's results, so does what ReLU's gradient stops.
    """
    rows, batch = structure.rows, x.shape[1]
    result = x.new_empty(rows, batch)
    if batch == 0:
        return result
    dtype = name_of(x.dtype)
    if variant is None:
        variant = chosen("product", structure, x, partial(product, structure, values, x, bias, relu=relu, passed=passed))
    form = CsrForm.of(structure, variant)
    if batch == 1:
        team = variant.threads
        arrays = (structure.pointers, structure.indices, values, x, result)
        run(_single(dtype, form.index_bytes), (*arrays, *of_bias(bias), rows, team), team)
        return finished(result, relu=relu, passed=passed)
    chunks, tiles = tiling(batch, dtype, variant.vectors, variant.vector_bytes)
    blocks, team = row_blocks(rows, tiles, variant.threads)
    scratch = _scratch(team, structure, chunks, variant)
    tensors = (structure.pointers, structure.indices, values, x, result, scratch, result if passed is None else passed)
    sizes = (rows, structure.columns, batch, tiles, blocks, scratch.shape[1])
    function = _product(dtype, chunks, variant.vector_bytes, form, relu=relu, has_passed=passed is not None)
    run(function, [*tensors, *of_bias(bias), *sizes], team)
    return result


def define_sampled(structure: Structure, grad: Tensor, x: Tensor) -> Tensor:
    """Return grad [rows, batch] times x [columns, batch] transposed, at the non-zeros [nnz]: what `sampled` means."""
    rows = torch.repeat_interleave(torch.arange(structure.rows), structure.pointers.diff())
    return (grad[rows] * x[structure.indices.long()]).sum(1)


def sampled(structure: Structure, grad: Tensor, x: Tensor, variant: Variant | None = None) -> Tensor:
    """Return, at the non-zeros alone [nnz], grad [rows, batch] times x [columns, batch] transposed, all contiguous.

    The batch is cut into as many parts as there are tasks, whoever takes them, and the parts are added in their order: for a
    number of threads the result is always the same.
    """
    batch, nnz = x.shape[1], len(structure.indices)
    if batch == 0 or nnz == 0:
        return x.new_zeros(nnz)
    dtype = name_of(x.dtype)
    if variant is None:
        variant = chosen("sampled", structure, x, partial(sampled, structure, grad, x))
    form = CsrForm.of(structure, variant)
    if batch == 1:
        blocks, team = row_blocks(structure.rows, 1, variant.threads)
        sums = x.new_empty(nnz)
        arrays = (structure.pointers, structure.indices, grad, x, sums)
        run(_single_sampled(dtype, form.index_bytes), [*arrays, structure.rows, blocks], team)
        return sums
    chunks, tiles = tiling(batch, dtype, variant.vectors, variant.vector_bytes)
    parts = min(max(1, tiles // TILES_PER_PART), TASKS_PER_THREAD * variant.threads)
    blocks, team = row_blocks(structure.rows, parts, variant.threads)
    scratch = _scratch(team, structure, chunks, variant)
    sums = x.new_empty(parts, nnz)
    tensors = (structure.pointers, structure.indices, grad, x, sums, scratch)
    sizes = (structure.rows, structure.columns, batch, tiles, blocks, scratch.shape[1], parts, nnz)
    run(_sampled(dtype, chunks, variant.vector_bytes, form), [*tensors, *sizes], team)
    return sums[0] if parts == 1 else sums.sum(0)


def tile_bytes(kernel: str, structure: Structure, x: Tensor) -> int:
    """Return the bytes of the packed tile that a "product" or "sampled" product with x [columns, batch] loads vectors from."""
    variant = chosen(kernel, structure, x, None)
    chunks, _ = tiling(x.shape[1], name_of(x.dtype), variant.vectors, variant.vector_bytes)
    return structure.columns * chunks * variant.vector_bytes


def _scratch(team: int, structure: Structure, chunks: int, variant: Variant) -> Tensor:
    """Return for each thread a tile of every column, with room to begin at a cache line."""
    return torch.empty(team, structure.columns * chunks * variant.vector_bytes + CACHE_LINE, dtype=torch.uint8)


def row_blocks(rows: int, tiles: int, team: int) -> tuple[int, int]:
    """Return into how many blocks of rows each tile's work is cut, and how many threads of a team are worth having."""
    blocks = 1 if tiles >= TASKS_PER_THREAD * team else min(rows, team // math.gcd(tiles, team))
    return blocks, min(team, tiles * blocks)


@kernel
def _product(dtype: str, chunks: int, vector_bytes: int, form: CsrForm, *, relu: bool, has_passed: bool) -> int:
    """Return the address of the kernel of `product` for tiles of so many vectors."""
    emit = emitter_for(dtype, vector_bytes)
    (
        pointers,
        indices,
        values,
        x,
        result,
        scratch,
        passed,
        bias,
        bias_step,
        rows,
        columns,
        batch,
        tiles,
        blocks,
        scratch_bytes,
    ) = (emit.argument(place) for place in range(15))
    buffer = emit.own_part(scratch, scratch_bytes)
    with emit.tasks(emit.times(tiles, blocks)) as task:
        tile, block = emit.divided(task, blocks)
        piece = Piece(emit, tile, chunks, batch)
        piece.pack(x, emit.constant(0), columns, buffer)
        with emit.loop(*emit.share(rows, block, blocks)) as row:
            first = emit.splat(emit.load(emit.number, emit.add(bias, emit.times(row.place, bias_step))))
            matrix = form.matrix((pointers, indices, indices), values)
            totals = row_product(emit, matrix, row.place, buffer, [first] * chunks)
            if relu:
                totals = [emit.passed(total, total) for total in totals]
            if has_passed:
                outputs = piece.read(piece.of(passed, row.place))
                totals = [emit.passed(*pair) for pair in zip(outputs, totals, strict=True)]
            piece.write(totals, piece.of(result, row.place))
    return emit.compiled()


@kernel
def _sampled(dtype: str, chunks: int, vector_bytes: int, form: CsrForm) -> int:
    """Return the address of the kernel of `sampled` for tiles of so many vectors."""
    emit = emitter_for(dtype, vector_bytes)
    pointers, indices, grad, x, sums, scratch, rows, columns, batch, tiles, blocks, scratch_bytes, parts, nnz = (
        emit.argument(place) for place in range(14)
    )
    buffer = emit.own_part(scratch, scratch_bytes)
    with emit.tasks(emit.times(parts, blocks)) as task:
        part, block = emit.divided(task, blocks)
        own_sums = emit.add(sums, emit.times(emit.times(part, nnz), emit.width))
        first_tile, last_tile = emit.share(tiles, part, parts)
        with emit.loop(first_tile, last_tile) as tile:
            piece = Piece(emit, tile.place, chunks, batch)
            piece.pack(x, emit.constant(0), columns, buffer)
            is_first = emit.builder.icmp_signed("==", tile.place, first_tile)
            with emit.loop(*emit.share(rows, block, blocks)) as row:
                held = piece.read(piece.of(grad, row.place))
                matrix = form.matrix((pointers, indices, indices), own_sums)
                row_sampled(emit, matrix, row.place, buffer, held, is_first)
    return emit.compiled()


@kernel
def _single(dtype: str, index_bytes: int) -> int:
    """Return the address of the kernel of `product` for one column: its rows are shared out, and sums are over a row."""
    emit = emitter_for(dtype, vector_bytes())
    pointers, indices, values, x, result, bias, bias_step, rows, blocks = (emit.argument(place) for place in range(9))
    lanes = SMALL_BYTES // emit.width
    matrix = CsrForm(index_bytes, 2 * lanes).matrix((pointers, indices, indices), values)
    small = ir.VectorType(emit.number, lanes)
    with emit.tasks(blocks) as block, emit.loop(*emit.share(rows, block, blocks)) as row:
        start, whole, end = matrix.row(emit, row.place)
        with emit.loop(start, whole, 2 * lanes, [ir.Constant(small, None)] * 2) as group:
            places = emit.indices(indices, group.place, 2 * lanes, index_bytes)
            for number in range(2):
                own = emit.load(small, matrix.value(emit, emit.add(group.place, number * lanes)))
                its = emit.gathered(x, places[number * lanes : (number + 1) * lanes])
                group.carried[number] = emit.multiply_add(own, its, group.carried[number])
        with emit.loop(whole, end, 1, [emit.total(emit.plus(*group.carried))]) as one:
            own = emit.load(emit.number, matrix.value(emit, one.place))
            its = emit.load(emit.number, emit.add(x, emit.times(emit.index(indices, one.place, index_bytes), emit.width)))
            one.carried = [emit.multiply_add(own, its, *one.carried)]
        first = emit.load(emit.number, emit.add(bias, emit.times(row.place, bias_step)))
        emit.store(emit.plus(first, *one.carried), emit.add(result, emit.times(row.place, emit.width)))
    return emit.compiled()


@kernel
def _single_sampled(dtype: str, index_bytes: int) -> int:
    """Return the address of the kernel of `sampled` for one column: its rows are shared out."""
    emit = emitter_for(dtype, vector_bytes())
    pointers, indices, grad, x, sums, rows, blocks = (emit.argument(place) for place in range(7))
    lanes = SMALL_BYTES // emit.width
    matrix = CsrForm(index_bytes, lanes).matrix((pointers, indices, indices), sums)
    with emit.tasks(blocks) as block, emit.loop(*emit.share(rows, block, blocks)) as row:
        mine = emit.load(emit.number, emit.add(grad, emit.times(row.place, emit.width)))
        start, whole, end = matrix.row(emit, row.place)
        with emit.loop(start, whole, lanes) as group:
            its = emit.gathered(x, emit.indices(indices, group.place, lanes, index_bytes))
            emit.store(emit.builder.fmul(its, emit.splat(mine, lanes)), matrix.value(emit, group.place))
        with emit.loop(whole, end) as one:
            its = emit.load(emit.number, emit.add(x, emit.times(emit.index(indices, one.place, index_bytes), emit.width)))
            emit.store(emit.builder.fmul(mine, its), matrix.value(emit, one.place))
    return emit.compiled()
