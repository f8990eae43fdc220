"""How one round is timed: on a CPU by a clock, on a GPU by events in its own queue; with warm caches or with cold ones.

Regimes: `warm` calls a work over and over, its data where the caches keep it; `cold` pushes everything out of the caches before
each call and times each call by itself; `graph` replays the work as a captured CUDA graph, which leaves out the launches.
"""

import time
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch

from bench.engine.contention import longest, waits
from bench.machine.bounds import cache_bytes
from sparse_models.errors import InputError

Work = Callable[[], object]
Timer = Callable[[], float]
REGIMES = ("warm", "cold", "graph")
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


def time_round(work: Work, loops: int, device: str, timer: Timer = time.perf_counter, evict: Work | None = None) -> Took:
    """Return what a call takes, over `loops` calls; with `evict`, each call is timed by itself after a call of that.

    On a GPU the time is the device's own between two events. A timer other than perf_counter is read there instead, once the
    device has finished.
    """
    if device != "cpu" and timer is time.perf_counter:
        return _device_round(work, loops, evict)
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
    return Took(total / loops, waited=longest(before, waits()) / max(elapsed, 1e-9))


def _device_round(work: Work, loops: int, evict: Work | None) -> Took:
    # The GPU first counts cycles for as long as the host takes to queue the round, so that no call waits for its launch. What
    # synchronises in its midst still waits, and that is then its time.
    begin = time.perf_counter()
    work()
    expected = (time.perf_counter() - begin) * loops
    torch.cuda.synchronize()
    events: list[tuple[Any, Any]] = []
    torch.cuda._sleep(int(min(2 * expected, 1.0) * CLOCK_HZ))  # noqa: SLF001  # PyTorch's own tests have no other way
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
    return Took(sum(start.elapsed_time(stop) for start, stop in events) / 1e3 / loops, host / loops)


@cache
def evictor(device: str) -> Work:
    """Return a work that fills the caches with something else: it writes twice the bytes that the last of them holds."""
    buffer = torch.ones(2 * cache_bytes(device) // 4, device=device)
    return lambda: buffer.add_(1)


def captured(work: Work) -> Work:
    """Return the replay of `work` as a CUDA graph; raises InputError where it cannot be captured."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # PyTorch asks for a few calls on a stream of their own before a capture
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            work()
    except RuntimeError as error:
        torch.cuda.synchronize()
        reason = str(error).splitlines()[0]
        raise InputError(
            f"expected a work that a CUDA graph can hold, got one that cannot ({reason}); use --regime warm"
        ) from None
    return graph.replay
