"""What bounds a product of a sparse matrix: multiply-adds that each load a vector from the cache level that a tile lives in."""

import time

import torch

from sparse_models.kernels.cpu._arithmetic import BYTES, computed, name_of
from sparse_models.kernels.cpu._compile import kernel, vector_bytes
from sparse_models.kernels.cpu._emit import CACHE_LINE
from sparse_models.kernels.cpu._team import run, threads
from sparse_models.kernels.cpu._tile import emitter_for

CHAINS = 16  # sums, more than hide the time that a multiply-add takes
CALL_BYTES, LEAST_CALLS = 2**27, 5  # loaded by each thread in one call, some milliseconds


def bound(tile_bytes: int, dtype: str, seconds: float = 0.05) -> float:
    """Return the FLOP/s of torch's threads, each with a tile of its own of so many bytes, rounded up to whole rounds of loads.

    Every multiply-add loads one vector, nothing is computed for addresses, and the tile is walked in order: the best of calls
    that take `seconds` together, since noise only ever takes away. How many there were, their sums tell.
    """
    dtype = name_of(computed(getattr(torch, dtype)))
    team, step = threads(), CHAINS * vector_bytes()
    size = -(-tile_bytes // step) * step
    repetitions = max(1, CALL_BYTES // size)
    own_bytes = size + CACHE_LINE
    sums = torch.empty(team * step // BYTES[dtype], dtype=getattr(torch, dtype), device="cpu")
    tiles = sums.new_ones(team * own_bytes // BYTES[dtype] + 1)  # written: pages of zeros are all the same page
    arguments = (tiles, sums, own_bytes, size, repetitions, team)
    times = list[float]()
    while len(times) < LEAST_CALLS or sum(times) < seconds:
        start = time.perf_counter()
        run(_loads(dtype), arguments, team)
        times.append(time.perf_counter() - start)
    return 2 * float(sums.double().sum()) / min(times)


@kernel
def _loads(dtype: str) -> int:
    """Return the address of a kernel that adds up a tile of each thread's own, over and over."""
    emit = emitter_for(dtype, vector_bytes())
    tiles, sums, own_bytes, size, repetitions, team = (emit.argument(place) for place in range(6))
    factor = emit.constant_vector(1.0)  # times the ones of the tile: a sum is the number of its multiply-adds
    with emit.tasks(team) as task:
        start = emit.aligned(emit.add(tiles, emit.times(task, own_bytes)))
        step = CHAINS * emit.lanes * emit.width
        with emit.loop(emit.constant(0), repetitions, 1, [emit.zero()] * CHAINS) as again:
            with emit.loop(start, emit.add(start, size), step, again.carried) as place:
                vectors = emit.vectors(place.place, CHAINS)
                place.carried = [
                    emit.multiply_add(vector, factor, total) for vector, total in zip(vectors, place.carried, strict=True)
                ]
            again.carried = place.carried
        emit.write(again.carried, emit.add(sums, emit.times(task, step)))
    return emit.compiled()
