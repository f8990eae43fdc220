"""Activations from batch-major to feature-major: PyTorch's own copy takes several times as long."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from sparse_models.kernels.cpu._arithmetic import BYTES, name_of
from sparse_models.kernels.cpu._compile import kernel, vector_bytes
from sparse_models.kernels.cpu._emit import Emitter
from sparse_models.kernels.cpu._team import run, threads
from sparse_models.kernels.cpu._tile import emitter_for

LEAST = 2**12  # numbers that are worth a kernel


def transposed(x: Tensor) -> Tensor:
    """Return x [batch, features], in any strides, as [features, batch], contiguous: what x.t().contiguous() is."""
    turned = x.t()
    if turned.is_contiguous():
        return turned
    if not x.is_contiguous() or x.numel() < LEAST:
        return turned.contiguous()
    batch, features = x.shape
    dtype = name_of(x.dtype)
    lanes = vector_bytes() // BYTES[dtype]
    if min(batch, features) < lanes:
        return turned.contiguous()
    whole_batch, whole_features = (size // lanes * lanes for size in (batch, features))
    result = x.new_empty(features, batch)
    team = min(threads(), whole_features // lanes)
    run(_squares(dtype), (x, result, batch, features, whole_batch, whole_features // lanes), team)
    # What fills no square is little.
    result[whole_features:] = turned[whole_features:]
    result[:whole_features, whole_batch:] = turned[:whole_features, whole_batch:]
    return result


@kernel
def _squares(dtype: str) -> int:
    """Return the address of a kernel that copies squares as wide as a vector: a task for each so many features."""
    emit = emitter_for(dtype, vector_bytes())
    x, result, batch, features, whole_batch, blocks = (emit.argument(place) for place in range(6))
    with emit.tasks(blocks) as block:
        feature = emit.times(block, emit.lanes)
        with emit.loop(emit.constant(0), whole_batch, emit.lanes) as sample:
            rows = []
            for lane in range(emit.lanes):
                place = emit.add(emit.times(emit.add(sample.place, lane), features), feature)
                rows.append(emit.load(emit.vector, emit.add(x, emit.times(place, emit.width))))
            for lane, column in enumerate(emit.transposed(rows)):
                place = emit.add(emit.times(emit.add(feature, lane), batch), sample.place)
                emit.store(column, emit.add(result, emit.times(place, emit.width)))
    return emit.compiled()


def take_in(emit: Emitter, x: Any, samples: Sequence[Any], inputs: Any, target: Any, chunks: int, some: Any = None) -> None:
    """Copy a tile of x [batch, in] to [in, tile]; where the batch has no more samples, the last stands again.

    With `some`, only features from one, a multiple of a vector's lanes, to below another are copied.
    """
    begin, batch = samples
    lanes, tile_bytes = emit.lanes, chunks * emit.lanes * emit.width
    first, last = some or (emit.constant(0), inputs)
    whole = emit.add(first, emit.builder.and_(emit.builder.sub(last, first), emit.constant(-lanes)))
    for chunk in range(chunks):
        own = emit.add(target, chunk * lanes * emit.width)
        rows = []
        for lane in range(lanes):
            sample = emit.least(emit.add(begin, chunk * lanes + lane), emit.add(batch, -1))
            rows.append(emit.add(x, emit.times(emit.times(sample, inputs), emit.width)))
        with emit.loop(first, whole, lanes) as feature:
            offset = emit.times(feature.place, emit.width)
            square = emit.transposed([emit.load(emit.vector, emit.add(row, offset)) for row in rows])
            at = emit.add(own, emit.times(feature.place, tile_bytes))
            for number, column in enumerate(square):
                emit.store(column, emit.add(at, number * tile_bytes))
        with emit.loop(whole, last) as feature:
            offset = emit.times(feature.place, emit.width)
            at = emit.add(own, emit.times(feature.place, tile_bytes))
            for number, row in enumerate(rows):
                emit.store(emit.load(emit.number, emit.add(row, offset)), emit.add(at, number * emit.width))
