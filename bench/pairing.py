"""Rounds in, ratio with an interval out: candidate and dense reference timed in interleaved pairs (A B B A)."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, NamedTuple

import torch

CONFIDENCE = 0.95
# With six pairs the smallest and the largest ratio bound the median at 97 %; fewer than six cannot reach 95 %.
MIN_PAIRS, MAX_PAIRS = 6, 20
CASE_SECONDS = 0.08  # what the pairs of one case should take together, once MIN_PAIRS is reached
ROUND_SECONDS = 2e-3  # a round is this long at least: 10,000 times the resolution of the clock
WARM_UP_SECONDS = 0.02
# The arm that goes second finds the caches full of the other's data, so each is called untimed before its clock starts: up to
# three times where a call is short. A call of SETTLED_SECONDS refills any cache in a part of its own time.
SETTLE_CALLS, SETTLE_SECONDS, SETTLED_SECONDS = 3, 2e-3, 10e-3

Work = Callable[[], object]


class Interval(NamedTuple):
    """A median and the two sample values that bound it with the stated confidence."""

    median: float
    low: float
    high: float


class Race(NamedTuple):
    """Seconds per call of each pair, in the order measured."""

    seconds: list[float]
    dense_seconds: list[float]

    @property
    def speedup(self) -> Interval:
        """The dense time over the candidate's, pair by pair."""
        return median_interval([dense / own for dense, own in zip(self.dense_seconds, self.seconds, strict=True)])


class Plan(NamedTuple):
    """Calls per round of candidate and reference, the number of pairs, and the untimed calls before each round."""

    loops: int
    dense_loops: int
    pairs: int
    settle: int = 0
    dense_settle: int = 0


def median_interval(sample: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Return the sample median and its distribution-free interval by the sign test (Conover 1999, section 3.2).

    The bounds are the k-th smallest and largest values, k as large as the binomial distribution allows; with too few
    values for the confidence asked (fewer than 6 for 95 %) they are the smallest and the largest.
    """
    ordered = sorted(sample)
    n, k = len(ordered), 0
    while k + 1 <= n // 2 and 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n <= 1 - confidence:
        k += 1
    k = max(k, 1)
    return Interval(statistics.median(ordered), ordered[k - 1], ordered[n - k])


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


def race(benchmark: Any, candidate: Work, reference: Work, device: str, plan: Plan | None = None) -> Race | None:
    """Time `candidate` by the benchmark fixture and `reference` beside it, in the order A B B A, and return the pairs.

    With a `plan` both must be warm already; without one they are warmed up and planned here. Returns None where timing is
    disabled (`--benchmark-disable`): then each ran once. The fixture reports seconds per call.
    """
    if benchmark.disabled:
        plan = Plan(1, 1, 1)
    plan = warm_up(candidate, reference, device) if plan is None else plan
    # The fixture's own timer, so that --benchmark-timer holds for both. Seconds per call: pedantic mode cannot loop with a
    # setup, so the loop is in the work and the clock divides by it. Private, and covered by a test of its own.
    timer = benchmark._timer
    clock = synchronised(timer, device)
    dense_seconds: list[float] = []
    pair = 0

    def time_reference() -> None:
        for _ in range(plan.dense_settle):
            reference()
        start = clock()
        for _ in range(plan.dense_loops):
            reference()
        dense_seconds.append((clock() - start) / plan.dense_loops)

    def before() -> None:
        if pair % 2 == 0:
            time_reference()
        for _ in range(plan.settle):
            candidate()

    def after() -> None:
        nonlocal pair
        if pair % 2 == 1:
            time_reference()
        pair += 1

    def work() -> None:
        for _ in range(plan.loops):
            candidate()

    benchmark._timer = wraps(timer)(lambda: clock() / plan.loops)  # saved runs name the timer
    try:
        benchmark.pedantic(work, setup=before, teardown=after, rounds=plan.pairs)
    except BaseException:
        benchmark.has_error = True  # Ctrl-C too: half a case must not be saved as if it were whole
        raise
    if benchmark.disabled:
        return None
    return Race(list(benchmark.stats.stats.data), dense_seconds[: plan.pairs])  # --benchmark-cprofile runs once more
