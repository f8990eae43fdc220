"""Loss and gradients of a chain of sparse layers, a tile of the batch at a time.

A tile goes through all layers, forward and backward, while it is in the caches; the gradients of the weights, at the non-zeros
alone, are added up from tile to tile. Layer by layer, every activation would go out to memory and come back three times.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sparse_models.kernels.cpu._arithmetic import BYTES, INTEGER, name_of
from sparse_models.kernels.cpu._compile import kernel, vector_bytes
from sparse_models.kernels.cpu._emit import CACHE_LINE, Emitter
from sparse_models.kernels.cpu._team import run, threads
from sparse_models.kernels.cpu._tile import Matrix, add_to, emitter_for, of_bias, row_product, row_sampled, tiling
from sparse_models.kernels.link import Gradients, Link

CHUNKS = 4  # vectors in a tile: so that all layers' rows of it stay in the second cache
PARTS_PER_THREAD = 2  # of the batch: who is done early takes another
PER_LAYER = 9  # arguments


def _rows(sizes: Sequence[int]) -> int:
    """Return the rows of a tile: the input of every layer, the logits, and two gradients of the widest of them."""
    return sum(sizes) + 2 * max(sizes)


def tile_bytes(sizes: Sequence[int]) -> int:
    """Return what a tile takes in a chain of layers of such sizes (in, hidden ..., out)."""
    return _rows(sizes) * CHUNKS * vector_bytes()


def tile_by_tile(links: Sequence[Link], x: Tensor, labels: Tensor) -> Gradients:
    """Return loss and gradients for x [batch, in], contiguous, and labels [batch]."""
    batch, dtype = len(labels), name_of(x.dtype)
    chunks, tiles = tiling(batch, dtype, CHUNKS)
    parts = min(tiles, PARTS_PER_THREAD * threads())
    team = min(parts, threads())
    sizes = [links[0].rows.columns, *(link.rows.rows for link in links)]
    scratch = torch.empty(team, _rows(sizes) * chunks * vector_bytes() + CACHE_LINE, dtype=torch.uint8)
    powers, shifts = x.new_empty(2, tiles * vector_bytes() // BYTES[dtype])
    lengths = [length for link in links for length in (len(link.values), link.rows.rows)]
    sums = x.new_empty(parts, sum(lengths))
    arguments: list[Tensor | int] = [x, labels, powers, shifts, scratch, sums, sums.shape[1]]
    arguments += [batch, tiles, parts, scratch.shape[1], sum(sizes), max(sizes), sizes[0]]
    for number, (link, size) in enumerate(zip(links, sizes[1:], strict=True)):
        transposed = link.transposed_values if number else link.values  # of the first layer there is no input gradient
        arguments += [link.rows.pointers, link.rows.indices, link.values, *of_bias(link.bias)]
        arguments += [link.columns.pointers, link.columns.indices, transposed, size]
    index_bytes = tuple(part.indices.element_size() for link in links for part in (link.rows, link.columns))
    run(_gradients(dtype, chunks, index_bytes), arguments, team)
    found = (sums[0] if parts == 1 else sums.sum(0)).split(lengths)
    loss = powers.log_().add_(shifts).sum().div_(batch)
    return Gradients(loss, list(found[::2]), list(found[1::2]))


@kernel
def _gradients(dtype: str, chunks: int, index_bytes: Sequence[int]) -> int:
    """Return the address of the kernel of `gradients` for tiles of so many vectors.

    There are as many layers as pairs of `index_bytes`, those of a layer's structure and of its transpose's.
    """
    emit, layers = emitter_for(dtype), len(index_bytes) // 2
    tile_bytes = chunks * emit.lanes * BYTES[dtype]
    x, labels, powers, shifts, scratch, sums, lengths, batch, tiles, parts, scratch_bytes, numbers, widest, inputs = (
        emit.argument(place) for place in range(14)
    )
    each = [[emit.argument(14 + PER_LAYER * layer + place) for place in range(PER_LAYER)] for layer in range(layers)]
    sizes = [inputs, *(one[-1] for one in each)]
    own = emit.own_part(scratch, scratch_bytes)
    held = [own]  # the input of each layer, then the logits
    for size in sizes[:-1]:
        held.append(emit.add(held[-1], emit.times(size, tile_bytes)))
    slopes = [emit.add(own, emit.times(numbers, tile_bytes))]
    slopes.append(emit.add(slopes[0], emit.times(widest, tile_bytes)))

    with emit.tasks(parts) as part:
        own_sums = [emit.add(sums, emit.times(emit.times(part, lengths), emit.width))]  # of values, biases, values ...
        for pointers, *_, size in each:
            own_sums.append(emit.add(own_sums[-1], emit.times(emit.index(pointers, size), emit.width)))
            own_sums.append(emit.add(own_sums[-1], emit.times(size, emit.width)))
        first_tile, last_tile = emit.share(tiles, part, parts)
        with emit.loop(first_tile, last_tile) as tile:
            is_first = emit.builder.icmp_signed("==", tile.place, first_tile)
            begin = emit.times(tile.place, chunks * emit.lanes)
            _take_in(emit, x, (begin, batch), inputs, held[0], chunks)
            for layer, (pointers, indices, values, bias, bias_step, *_) in enumerate(each):
                matrix = Matrix(pointers, indices, index_bytes[2 * layer], values)
                with emit.loop(emit.constant(0), sizes[layer + 1]) as row:
                    bias_here = emit.splat(emit.load(emit.number, emit.add(bias, emit.times(row.place, bias_step))))
                    totals = row_product(emit, matrix, row.place, held[layer], [bias_here] * chunks)
                    if layer < layers - 1:
                        totals = [emit.passed(total, total) for total in totals]
                    emit.write(totals, emit.add(held[layer + 1], emit.times(row.place, tile_bytes)))
            _cross_entropy(emit, held[-1], slopes[0], sizes[-1], (labels, powers, shifts, tile.place, batch), chunks)
            for layer in reversed(range(layers)):
                pointers, indices, _, _, _, t_pointers, t_indices, t_values, size = each[layer]
                slope, below = slopes if (layers - 1 - layer) % 2 == 0 else slopes[::-1]
                own_values, own_biases = own_sums[2 * layer : 2 * layer + 2]
                sampled = Matrix(pointers, indices, index_bytes[2 * layer], own_values)
                with emit.loop(emit.constant(0), size) as row:
                    vectors = emit.vectors(emit.add(slope, emit.times(row.place, tile_bytes)), chunks)
                    row_sampled(emit, sampled, row.place, held[layer], vectors, is_first)
                    total = vectors[0]
                    for vector in vectors[1:]:
                        total = emit.plus(total, vector)
                    add_to(emit, emit.total(total), emit.add(own_biases, emit.times(row.place, emit.width)), is_first)
                if layer:
                    matrix = Matrix(t_pointers, t_indices, index_bytes[2 * layer + 1], t_values)
                    with emit.loop(emit.constant(0), sizes[layer]) as row:
                        totals = row_product(emit, matrix, row.place, slope, [emit.zero()] * chunks)
                        offset = emit.times(row.place, tile_bytes)
                        outputs = emit.vectors(emit.add(held[layer], offset), chunks)
                        passed = [emit.passed(*pair) for pair in zip(outputs, totals, strict=True)]
                        emit.write(passed, emit.add(below, offset))
    return emit.compiled()


def _take_in(emit: Emitter, x: Any, samples: Sequence[Any], inputs: Any, target: Any, chunks: int) -> None:
    """Copy a tile of x [batch, in] to [in, tile]; where the batch has no more samples, the last stands again."""
    begin, batch = samples
    lanes, tile_bytes = emit.lanes, chunks * emit.lanes * emit.width
    whole = emit.times(emit.builder.sdiv(inputs, emit.constant(lanes)), lanes)
    for chunk in range(chunks):
        own = emit.add(target, chunk * lanes * emit.width)
        rows = []
        for lane in range(lanes):
            sample = emit.least(emit.add(begin, chunk * lanes + lane), emit.add(batch, -1))
            rows.append(emit.add(x, emit.times(emit.times(sample, inputs), emit.width)))
        with emit.loop(emit.constant(0), whole, lanes) as feature:
            offset = emit.times(feature.place, emit.width)
            square = emit.transposed([emit.load(emit.vector, emit.add(row, offset)) for row in rows])
            at = emit.add(own, emit.times(feature.place, tile_bytes))
            for number, column in enumerate(square):
                emit.store(column, emit.add(at, number * tile_bytes))
        with emit.loop(whole, inputs) as feature:
            offset = emit.times(feature.place, emit.width)
            at = emit.add(own, emit.times(feature.place, tile_bytes))
            for number, row in enumerate(rows):
                emit.store(emit.load(emit.number, emit.add(row, offset)), emit.add(at, number * emit.width))


def _cross_entropy(emit: Emitter, logits: Any, slopes: Any, classes: Any, samples: Sequence[Any], chunks: int) -> None:
    """Write the gradient of the mean cross-entropy by the logits [classes, tile].

    A sample's own is the logarithm of a sum of powers plus a shift. Written are, for each lane of the tile, the sums' product,
    each at most the number of classes, and the sum of the shifts: one logarithm for every few samples.
    """
    labels, powers, shifts, tile, batch = samples
    builder, vector_bytes = emit.builder, emit.lanes * emit.width
    tile_bytes, last, begin = chunks * vector_bytes, emit.add(batch, -1), emit.times(tile, chunks * emit.lanes)
    one, power_product, shift = emit.constant_vector(1.0), emit.constant_vector(1.0), emit.zero()
    for chunk in range(chunks):
        own_logits, own_slopes = (emit.add(base, chunk * vector_bytes) for base in (logits, slopes))
        sample = emit.add(begin, chunk * emit.lanes)
        own_labels = emit.gathered(labels, [emit.least(emit.add(sample, lane), last) for lane in range(emit.lanes)], INTEGER)
        nothing = emit.constant_vector(float("-inf"))
        with emit.loop(emit.constant(0), classes, carried=[nothing, emit.zero()]) as row:
            here = emit.load(emit.vector, emit.add(own_logits, emit.times(row.place, tile_bytes)))
            largest, wanted = row.carried
            is_label = builder.icmp_signed("==", own_labels, emit.splat(row.place))
            row.carried = [emit.larger(here, largest), builder.select(is_label, here, wanted)]
        largest, wanted = row.carried
        with emit.loop(emit.constant(0), classes, carried=[emit.zero()]) as row:
            offset = emit.times(row.place, tile_bytes)
            here = emit.load(emit.vector, emit.add(own_logits, offset))
            power = emit.exp(builder.fsub(here, largest))
            emit.store(power, emit.add(own_slopes, offset))
            row.carried = [emit.plus(row.carried[0], power)]
        [total] = row.carried
        valid = emit.below(builder.sub(batch, sample))  # what pads the last tile has no loss, and no gradient
        power_product = builder.fmul(power_product, builder.select(valid, total, one))
        shift = emit.plus(shift, builder.select(valid, builder.fsub(largest, wanted), emit.zero()))
        one_of = builder.fdiv(one, emit.splat(builder.sitofp(batch, emit.number)))
        scale = builder.select(valid, one_of, emit.zero())
        with emit.loop(emit.constant(0), classes) as row:
            address = emit.add(own_slopes, emit.times(row.place, tile_bytes))
            share = builder.fdiv(emit.load(emit.vector, address), total)
            is_label = builder.icmp_signed("==", own_labels, emit.splat(row.place))
            share = builder.fsub(share, builder.select(is_label, one, emit.zero()))
            emit.store(builder.fmul(share, scale), address)
    emit.store(power_product, emit.add(powers, emit.times(tile, vector_bytes)))
    emit.store(shift, emit.add(shifts, emit.times(tile, vector_bytes)))
