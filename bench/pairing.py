"""Works in, pairs out: candidate and dense reference timed in turn (A B B A) within one process."""

import math
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch

# Per process: processes differ by more than more pairs could tell.
MIN_PAIRS, MAX_PAIRS = 2, 8
CASE_SECONDS = 0.02  # what the pairs of one case should take together in one process, once MIN_PAIRS is reached
ROUND_SECONDS = 1e-3  # a round is this long at least: 5,000 times the resolution of the clock
WARM_UP_SECONDS = 0.01
# The arm that goes second finds the caches full of the other's data, so each is called untimed before its clock starts: up to
# three times where a call is short. A call of SETTLED_SECONDS refills any cache in a part of its own time.
SETTLE_CALLS, SETTLE_SECONDS, SETTLED_SECONDS = 3, 1e-3, 5e-3

Work = Callable[[], object]
Timer = Callable[[], float]


class Race(NamedTuple):
    """Seconds per call of each pair, in the order measured."""

    seconds: list[float]
    dense_seconds: list[float]

    @property
    def speedups(self) -> list[float]:
        """The dense time over the candidate's, pair by pair."""
        return [dense / own for dense, own in zip(self.dense_seconds, self.seconds, strict=True)]

    @property
    def speedup(self) -> float:
        """What this process says: the median over its pairs."""
        return statistics.median(self.speedups)


class Plan(NamedTuple):
    """Calls per round of candidate and reference, the number of pairs, and the untimed calls before each round."""

    loops: int
    dense_loops: int
    pairs: int
    settle: int = 0
    dense_settle: int = 0


class Racer(Protocol):
    """What a benchmark body is given to time its two works with; `once` where each is only to run, untimed."""

    once: bool

    def __call__(self, candidate: Work, reference: Work, device: str, plan: Plan | None = None) -> None:
        """Time both, or run both once."""


def synchronised(timer: Callable[[], float], device: str) -> Callable[[], float]:
    """Return `timer` read only once the device has finished all that was queued."""
    if device == "cpu":
        return timer

    def read() -> float:
        torch.cuda.synchronize()
        return timer()

    return read


def warm_up(candidate: Work, reference: Work, device: str) -> Plan:
    """Run both in turn until warm, and plan rounds long against the clock from their last, warm times."""
    clock = synchronised(time.perf_counter, device)
    start = clock()
    times: list[list[float]] = [[], []]
    while clock() - start < WARM_UP_SECONDS or len(times[0]) < 2:
        for work, seen in zip((candidate, reference), times, strict=True):
            begin = clock()
            work()
            seen.append(clock() - begin)
    own, dense = (min(seen[len(seen) // 2 :]) for seen in times)
    loops, dense_loops = (max(1, math.ceil(ROUND_SECONDS / max(one, 1e-9))) for one in (own, dense))
    settle, dense_settle = (
        0 if one > SETTLED_SECONDS else min(SETTLE_CALLS, math.ceil(SETTLE_SECONDS / max(one, 1e-9))) for one in (own, dense)
    )
    a_pair = (loops + settle) * own + (dense_loops + dense_settle) * dense
    # Even, so that each arm goes first as often as the other.
    pairs = 2 * round(CASE_SECONDS / a_pair / 2)
    return Plan(loops, dense_loops, min(MAX_PAIRS, max(MIN_PAIRS, pairs)), settle, dense_settle)


def race(candidate: Work, reference: Work, device: str, plan: Plan | None = None, timer: Timer = time.perf_counter) -> Race:
    """Time `candidate` and `reference` in interleaved pairs, in the order A B B A, and return the pairs.

    With a `plan` both must be warm already; without one they are warmed up and planned here.
    """
    plan = warm_up(candidate, reference, device) if plan is None else plan
    clock = synchronised(timer, device)

    def seconds(work: Work, loops: int, settle: int) -> float:
        for _ in range(settle):
            work()
        start = clock()
        for _ in range(loops):
            work()
        return (clock() - start) / loops

    pairs = Race([], [])
    for pair in range(plan.pairs):
        if pair % 2 == 0:
            pairs.dense_seconds.append(seconds(reference, plan.dense_loops, plan.dense_settle))
        pairs.seconds.append(seconds(candidate, plan.loops, plan.settle))
        if pair % 2 == 1:
            pairs.dense_seconds.append(seconds(reference, plan.dense_loops, plan.dense_settle))
    return pairs
