"""The cross-entropy of a tile of samples, and its gradient by the logits."""

from collections.abc import Sequence
from typing import Any

from sparse_models.kernels.cpu._arithmetic import INTEGER
from sparse_models.kernels.cpu._emit import Emitter


def cross_entropy(emit: Emitter, logits: Any, slopes: Any, classes: Any, samples: Sequence[Any], chunks: int) -> None:
    """Write the gradient of the mean cross-entropy by the logits [classes, tile].

    A sample's own is the logarithm of a sum of powers plus a shift. Written are, for each lane of the tile, the sums' product,
    each at most the number of classes, and the sum of the shifts: one logarithm for every few samples.
    """
    labels, powers, shifts, tile, batch = samples
    builder, vector_bytes = emit.builder, emit.vector_bytes
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
