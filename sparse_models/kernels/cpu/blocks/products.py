"""Products of a block-sparse matrix with feature-major activations, a tile of the batch at a time.

As in `tiled`, but each vector of the tile that is loaded is multiplied with several rows of a block, and each value of a block
with several vectors: what bounds these products is the processor's multiply-adds, and no longer its loads.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sparse_models.kernels.candidates import team_for
from sparse_models.kernels.cpu._arithmetic import name_of
from sparse_models.kernels.cpu._compile import kernel, vector_bytes
from sparse_models.kernels.cpu._emit import CACHE_LINE
from sparse_models.kernels.cpu._team import run, threads, threads_for
from sparse_models.kernels.cpu._tile import TASKS_PER_THREAD, TILE_BYTES, Piece, Sums, emitter_for, of_bias, tiling
from sparse_models.kernels.cpu.blocks._matrix import BlockForm, BlockMatrix
from sparse_models.kernels.cpu.blocks._outer import row_sampled
from sparse_models.kernels.cpu.blocks._registers import registers
from sparse_models.kernels.cpu.blocks._single import single, single_sampled
from sparse_models.kernels.cpu.tiled import TILES_PER_PART, finished, row_blocks
from sparse_models.kernels.structure import BlockStructure

PAGE = 2**12  # bytes
MOST_SAMPLED = 16  # vectors in a tile of `sampled`: its sums are totalled once for all of them


def define_product(
    structure: BlockStructure,
    values: Tensor,
    x: Tensor,
    bias: Tensor | None = None,
    *,
    relu: bool = False,
    passed: Tensor | None = None,
) -> Tensor:
    """Return the matrix times x [columns, batch], plus bias [rows]: what `product` means."""
    result = structure.dense(values) @ x
    return finished(result if bias is None else result + bias[:, None], relu=relu, passed=passed)


def product(
    structure: BlockStructure,
    values: Tensor,
    x: Tensor,
    bias: Tensor | None = None,
    *,
    relu: bool = False,
    passed: Tensor | None = None,
    team: int | None = None,
) -> Tensor:
    """Return the matrix that holds `values` [blocks, height, width] times x [columns, batch], plus bias [rows]: [rows, batch].

    All are contiguous. With `relu`, what is below 0 becomes 0; with `passed` [rows, batch], ReLU's results, so does what ReLU's
    gradient stops. How many threads multiply one sample is measured where it is not given.
    """
    batch, dtype = x.shape[1], name_of(x.dtype)
    whole = x.new_empty(structure.rows_in_units, batch)  # what the last blocks have beyond the edge is written, and cut off
    result = whole[: structure.rows]
    if batch == 0:
        return result
    pointers, indices, order = structure.arrays
    bias = None if bias is None else whole_blocks(bias, structure.height)
    if batch == 1:
        if team is None:
            asked = ("blocks", (structure.columns, structure.rows), 1, values.numel(), x.dtype)
            team = team_for(asked, values.numel(), lambda team: product(structure, values, x, bias, team=team))
        team = min(team, structure.rows_of_blocks)
        arrays = (pointers, indices, order, values, whole_blocks(x, structure.width), whole)
        run(single(dtype, BlockForm.of(structure)), [*arrays, *of_bias(bias), structure.rows_of_blocks, team], team)
        return finished(result, relu=relu, passed=passed)
    chunks, tiles = tiling(batch, dtype, widest(), vector_bytes())
    # Few tiles, where they are read as they lie, go by the thread that has the rows: what is written is then one core's, where
    # cores would fetch one another's ends of them. Not where there are few rows, of which some threads would have none.
    enough = TASKS_PER_THREAD * threads()
    is_by_rows = tiles < enough <= structure.rows_of_blocks and vector_bytes() >= CACHE_LINE
    parts, team = row_blocks(structure.rows_of_blocks, 1 if is_by_rows else tiles, threads())
    scratch = _scratch(x, team, structure.columns_of_blocks * structure.width, chunks)
    tensors = (pointers, indices, order, values, x, whole, scratch, whole if passed is None else passed)
    sizes = (structure.rows, structure.rows_of_blocks, structure.columns, batch, tiles, parts, scratch.shape[1])
    function = _product(dtype, BlockForm.of(structure), chunks, relu=relu, has_passed=passed is not None)
    run(function, [*tensors, *of_bias(bias), *sizes], team)
    return result


def define_sampled(structure: BlockStructure, grad: Tensor, x: Tensor) -> Tensor:
    """Return grad [rows, batch] times x [columns, batch] transposed, at the blocks: what `sampled` means."""
    return structure.at(grad @ x.t())


def sampled(structure: BlockStructure, grad: Tensor, x: Tensor) -> Tensor:
    """Return, at the blocks alone [blocks, height, width], grad [rows, batch] times x [columns, batch] transposed."""
    return sampled_and_summed(structure, grad, x)[0]


def sampled_and_summed(structure: BlockStructure, grad: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return what `sampled` does, and the sums of grad's rows [rows]: a bias's gradient.

    All are contiguous; beyond the edges of the matrix there are zeros. The batch is cut into parts that are added in their
    order, as by `tiled.sampled`.
    """
    batch, blocks, dtype = x.shape[1], len(structure.indices), name_of(x.dtype)
    shape = (blocks, structure.height, structure.width)
    if batch == 0 or blocks == 0:
        return x.new_zeros(shape), grad.sum(1)
    pointers, indices, _ = structure.arrays
    if batch == 1:
        sums = x.new_empty(shape)
        team = min(threads_for(sums.numel()), structure.rows_of_blocks)
        arrays = (pointers, indices, whole_blocks(grad, structure.height), whole_blocks(x, structure.width), sums)
        run(single_sampled(dtype, BlockForm.of(structure)), [*arrays, structure.rows_of_blocks, team], team)
        return sums, grad.sum(1)
    chunks, tiles = tiling(batch, dtype, MOST_SAMPLED, vector_bytes())
    parts = min(max(1, tiles // TILES_PER_PART), TASKS_PER_THREAD * threads())
    shares, team = row_blocks(structure.rows_of_blocks, parts, threads())
    # The rows of a row of blocks are packed as well, after those of all columns, and once more regrouped.
    columns = structure.columns_of_blocks * structure.width
    scratch = _scratch(x, team, columns + 2 * structure.height, chunks)
    sums, row_sums = x.new_empty(parts, *shape), x.new_empty(parts, structure.rows_in_units)
    tensors = (pointers, indices, grad, x, sums, row_sums, scratch)
    sizes = (structure.rows, structure.rows_of_blocks, structure.columns, batch, tiles, shares, scratch.shape[1], parts)
    run(_sampled(dtype, BlockForm.of(structure), chunks), [*tensors, *sizes, sums[0].numel()], team)
    values, totals = (sums[0], row_sums[0]) if parts == 1 else (sums.sum(0), row_sums.sum(0))
    return values, totals[: structure.rows]


def widest() -> int:
    """Return the most vectors that a tile should be wide: with some rows of a block, as many sums as registers hold."""
    return 4 if registers() == 32 else 3


def whole_blocks(numbers: Tensor, size: int) -> Tensor:
    """Return numbers [features] or [features, 1] with zeros after them, so that they fill whole blocks of a size."""
    missing = -len(numbers) % size
    return functional.pad(numbers.reshape(-1), (0, missing)) if missing else numbers


def _scratch(x: Tensor, team: int, rows: int, chunks: int) -> Tensor:
    """Return for each thread a tile of so many rows, where x is, with room to begin at a cache line."""
    return x.new_empty(team, rows * chunks * vector_bytes() + CACHE_LINE, dtype=torch.uint8)


def packed(piece: Piece, x: Any, columns: Any, width: int, buffer: Any) -> Any:
    """Pack x into a buffer, with zeros that fill whole blocks, and return its address; or that of x, if that is so packed."""
    emit = piece.emit
    is_packed = emit.builder.icmp_signed("==", piece.batch, emit.constant(piece.chunks * emit.lanes))
    for number, same in ((emit.aligned(x), x), (emit.padded(columns, width), columns)):
        is_packed = emit.builder.and_(is_packed, emit.builder.icmp_signed("==", number, same))
    with emit.builder.if_then(emit.builder.not_(is_packed)):
        piece.pack(x, emit.constant(0), columns, buffer, of=width)
    return emit.builder.select(is_packed, x, buffer)


def taken(piece: Piece, x: Any, columns: Any, width: int, buffer: Any) -> tuple[Any, Any]:
    """Return where a product finds a tile of x, and the bytes from one of its rows to the next: as it lies, or packed.

    Where vectors are cache lines, a row of a tile lies side by side in x as well, and to pack it takes 2 to 14 % of a product.
    Rows that lie far apart share the sets of a second cache, which then holds fewer of them: by up to a page, beyond which
    nobody knows where they lie. Shorter vectors, three at a time, took 1.1 to 1.7 times as long as they lie.
    """
    emit = piece.emit
    row_bytes, packed_bytes = emit.times(piece.batch, emit.width), emit.constant(piece.chunks * emit.vector_bytes)
    if emit.vector_bytes < CACHE_LINE:
        return packed(piece, x, columns, width, buffer), packed_bytes
    apart = emit.times(columns, emit.least(row_bytes, emit.constant(PAGE)))
    is_there = emit.builder.and_(piece.is_whole, emit.builder.icmp_signed("<=", apart, emit.constant(TILE_BYTES)))
    for number, same in ((emit.aligned(x), x), (emit.aligned(row_bytes), row_bytes), (emit.padded(columns, width), columns)):
        is_there = emit.builder.and_(is_there, emit.builder.icmp_signed("==", number, same))
    with emit.builder.if_then(emit.builder.not_(is_there)):
        piece.pack(x, emit.constant(0), columns, buffer, of=width)
    own = piece.of(x, emit.constant(0))
    return emit.builder.select(is_there, own, buffer), emit.builder.select(is_there, row_bytes, packed_bytes)


@kernel
def _product(dtype: str, form: BlockForm, chunks: int, *, relu: bool, has_passed: bool) -> int:
    """Return the address of the kernel of `product` for tiles of so many vectors."""
    emit = emitter_for(dtype, vector_bytes())
    pointers, indices, order, values, x, result, scratch, passed, bias, bias_step = (emit.argument(at) for at in range(10))
    rows, rows_of_blocks, columns, batch, tiles, parts, scratch_bytes = (emit.argument(at) for at in range(10, 17))
    buffer = emit.own_part(scratch, scratch_bytes)
    matrix = BlockMatrix(form, pointers, indices, order, values)
    with emit.tasks(emit.times(tiles, parts)) as task:
        part, tile = emit.divided(task, tiles)
        piece = Piece(emit, tile, chunks, batch)
        at, row_bytes = taken(piece, x, columns, form.width, buffer)

        def begin(row: object) -> list[object]:
            return [emit.splat(emit.load(emit.number, emit.add(bias, emit.times(row, bias_step))))] * chunks

        def finish(row: object, totals: list[object]) -> None:
            if relu:
                totals = [emit.passed(total, total) for total in totals]
            if has_passed:
                inside = emit.least(row, emit.add(rows, -1))  # of rows beyond the edge nothing is kept
                totals = [emit.passed(*pair) for pair in zip(piece.read(piece.of(passed, inside)), totals, strict=True)]
            piece.write(totals, piece.of(result, row))

        matrix.products(emit, emit.share(rows_of_blocks, part, parts), at, Sums(begin, finish, None, chunks), row_bytes)
    return emit.compiled()


@kernel
def _sampled(dtype: str, form: BlockForm, chunks: int) -> int:
    """Return the address of the kernel of `sampled` for tiles of so many vectors."""
    emit = emitter_for(dtype, vector_bytes())
    pointers, indices, grad, x, sums, row_sums, scratch, rows, rows_of_blocks = (emit.argument(at) for at in range(9))
    columns, batch, tiles, shares, scratch_bytes, parts, numbers = (emit.argument(at) for at in range(9, 16))
    buffer = emit.own_part(scratch, scratch_bytes)
    padded = emit.times(emit.padded(columns, form.width), chunks * emit.lanes * emit.width)
    held = emit.add(buffer, padded)
    spare = emit.add(held, form.height * chunks * emit.vector_bytes)
    with emit.tasks(emit.times(parts, shares)) as task:
        part, share = emit.divided(task, shares)
        own_sums = emit.add(sums, emit.times(emit.times(part, numbers), emit.width))
        first_total = emit.times(emit.times(part, rows_of_blocks), form.height)
        matrix = BlockMatrix(form, pointers, indices, indices, own_sums)
        first_tile, last_tile = emit.share(tiles, part, parts)
        with emit.loop(first_tile, last_tile) as tile:
            piece = Piece(emit, tile.place, chunks, batch)
            at = packed(piece, x, columns, form.width, buffer)
            is_first = emit.builder.icmp_signed("==", tile.place, first_tile)
            with emit.loop(*emit.share(rows_of_blocks, share, shares)) as row:
                first = emit.times(row.place, form.height)
                end = emit.add(first, form.height)
                # Rows that are there are read where they are.
                is_whole = emit.builder.and_(piece.is_whole, emit.builder.icmp_signed("<=", end, rows))
                last = emit.builder.select(is_whole, first, emit.least(end, rows))
                piece.pack(grad, first, last, held, of=form.height)
                own = [
                    emit.builder.select(is_whole, *pair)
                    for pair in (
                        (piece.of(grad, first), held),
                        (emit.times(batch, emit.width), emit.constant(chunks * emit.vector_bytes)),
                    )
                ]
                totals = emit.add(row_sums, emit.times(emit.add(first_total, first), emit.width))
                row_sampled(emit, matrix, row.place, (own, at, spare), chunks, is_first, totals)
    return emit.compiled()
