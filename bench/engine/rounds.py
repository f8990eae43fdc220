"""How one round is timed: on a CPU by a clock, on a GPU by events in its own queue; with warm caches or with cold ones.

Regimes: `warm` calls a work over and over, its data where the caches keep it; `cold` pushes everything out of the caches before
each call and times each call by itself; `busy` is warm, beside processes that keep half of the threads' cores busy; `graph`
replays the work as a captured CUDA graph, which leaves out the launches (bench.works.replays), and `graph-cold` replays it on
copies of its weights in turn, more than the last cache holds.
"""

import time
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch

from bench.machine.bounds import cache_bytes
from bench.works.replays import Work
from sparse_models.kernels.contention import longest, waits

Timer = Callable[[], float]
CLOCK_HZ = 2e9  # of a GPU, roughly and rather too high: for how long it is kept busy while a queue fills


class Took(NamedTuple):
    """Seconds per call, on a GPU the host's beside them; and the fraction of the round for which some thread had no core."""

    seconds: float
    host_seconds: float | None = None
    waited: float = 0.0


def synchronised(timer: Timer, device: str) -> Timer:
    """Return `timer` read only once the device has finished all that was queued."""
    if device == "cpu":
        return timer

    def read() -> float:
        torch.cuda.synchronize()
        return timer()

    return read


def calls_of(work: Work) -> int:
    """Return how many calls of what is timed a work stands for: a replay holds several."""
    return int(getattr(work, "calls", 1))


def time_round(
    work: Work,
    loops: int,
    device: str,
    timer: Timer = time.perf_counter,
    evict: Work | None = None,
    queueing: float = 0.0,
) -> Took:
    """Return what a call takes, over `loops` calls; with `evict`, each call is timed by itself after a call of that.

    On a GPU the time is the device's own between two events, and `queueing` are the seconds for which the host is known to
    be busy with queueing a call. A timer other than perf_counter is read there instead, once the device has finished.
    """
    if device != "cpu" and timer is time.perf_counter:
        return _device_round(work, loops, evict, queueing)
    clock = synchronised(timer, device)
    total = 0.0
    before, begin = waits(), time.perf_counter()
    for _ in range(loops if evict else 1):
        if evict:
            evict()
        start = clock()
        for _ in range(1 if evict else loops):
            work()
        total += clock() - start
    elapsed = time.perf_counter() - begin
    return Took(total / loops / calls_of(work), waited=longest(before, waits()) / max(elapsed, 1e-9))


def _device_round(work: Work, loops: int, evict: Work | None, queueing: float) -> Took:
    # The GPU first counts cycles for as long as the host takes to queue the round, so that no call waits for its launch. What
    # synchronises in its midst still waits, and that is then its time. A work is called as often as it is timed and no more:
    # an epoch of a training cannot be repeated to learn how long the host is busy with it.
    torch.cuda.synchronize()
    events: list[tuple[Any, Any]] = []
    if queueing:
        torch.cuda._sleep(int(min(2 * queueing * loops, 1.0) * CLOCK_HZ))  # noqa: SLF001  # PyTorch's own tests have no other
    host = 0.0
    for _ in range(loops if evict else 1):
        if evict:
            evict()
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin = time.perf_counter()
        start.record()
        for _ in range(1 if evict else loops):
            work()
        stop.record()
        host += time.perf_counter() - begin
        events.append((start, stop))
    torch.cuda.synchronize()
    calls = loops * calls_of(work)
    return Took(sum(start.elapsed_time(stop) for start, stop in events) / 1e3 / calls, host / calls)


@cache
def evictor(device: str) -> Work:
    """Return a work that fills the caches with something else: it writes twice the bytes that the last of them holds."""
    buffer = torch.ones(2 * cache_bytes(device) // 4, device=device)
    return lambda: buffer.add_(1)
