"""Works in, one CUDA graph that is replayed in their place out: what is left are the kernels, without their launches.

A graph holds as many calls as fill a round. Several works are copies of one on copies of its weights: called in turn, each
finds its own no longer in the last cache, as a layer of a large model does.
"""

import itertools
import math
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch

from sparse_models.replays.capture import capturing

Work = Callable[[], object]
Works = Work | Sequence[Work]  # several are copies of one, on copies of its data
GRAPH_SECONDS = 1e-3  # of kernels in a graph: a replay's own microseconds are then a small part
MOST_CALLS = 256  # of a work in a graph: capturing takes the host as long as calling
WARM_CALLS = 3  # PyTorch asks for a few on the stream of the capture; the last tells how long one takes


class AsLaunched:
    """A work that is called as it is, also where others are replayed: each kernel launched by the host."""

    def __init__(self, work: Work) -> None:
        """Wrap a work."""
        self.work = work

    def __call__(self) -> object:
        """Call it."""
        return self.work()


class Replay:
    """A captured graph of so many calls of a work."""

    def __init__(self, graph: torch.cuda.CUDAGraph, calls: int) -> None:
        """Keep the graph."""
        self.graph, self.calls = graph, calls
        self()  # the first takes longer: the graph is brought onto the device
        torch.cuda.synchronize()
        begin = time.perf_counter()
        self()
        self.queueing = time.perf_counter() - begin  # seconds for which the host is busy with a replay

    def __call__(self) -> None:
        """Queue all the calls."""
        self.graph.replay()


def listed(works: Works) -> list[Work]:
    """Return the works as a list."""
    return [works] if callable(works) else list(works)


def in_turn(works: Sequence[Work]) -> Work:
    """Return a work that calls the next of several each time."""
    if len(works) == 1:
        return works[0]
    turns = itertools.cycle(works)

    def call_next() -> object:
        return next(turns)()

    return call_next


@cache
def _pool() -> tuple[torch.cuda.CUDAGraph, Any]:
    """Return the memory that all graphs of a process share, and a graph that keeps it: none needs what another's replay leaves.

    Each with memory of its own, what one has freed would be lost to the others.
    """
    number, graph = torch.zeros(1, device="cuda"), torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    graph.capture_begin()
    number.add_(1)
    graph.capture_end()
    return graph, graph.pool()


def captured(works: Sequence[Work]) -> Replay:
    """Return the replay of works, called in turn, as a CUDA graph; raises InputError where one cannot be captured.

    They are captured on the current stream, which must not be the default one: the backward pass of a graph that was built
    before runs on the stream of its forward pass. After a capture that failed the process had better end: what mends PyTorch's
    allocator and generators is no documented way.
    """
    seconds, (_, pool) = _seconds_of(works), _pool()
    rounds = min(max(1, math.ceil(GRAPH_SECONDS / seconds / len(works))), max(1, MOST_CALLS // len(works)))
    graph = torch.cuda.CUDAGraph()
    with capturing(graph, pool):
        for work in [*works] * rounds:
            work()
    return Replay(graph, rounds * len(works))


def _seconds_of(works: Sequence[Work]) -> float:
    """Return about how long the device takes for a call, having called each work on the stream of the capture."""
    for _ in range(WARM_CALLS - 1):
        for work in works:
            work()
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for work in works:
        work()
    stop.record()
    torch.cuda.synchronize()
    return max(float(start.elapsed_time(stop)) / 1e3 / len(works), 1e-6)
