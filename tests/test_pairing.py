import random
import statistics
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import pairing
from bench.pairing import MIN_PAIRS, Plan, Race, median_interval, race, warm_up
from tests.strategies import seeds

times = st.floats(1e-6, 1e3)


class Clock:
    """A clock that only work moves."""

    def __init__(self) -> None:
        self.now, self.log = 0.0, ""

    def __call__(self) -> float:
        return self.now

    def work(self, name: str, seconds: float) -> Callable[[], None]:
        def run() -> None:
            self.now += seconds
            self.log += name

        return run


class FakeBenchmark:
    """pytest-benchmark's fixture, as far as its documentation describes pedantic mode; the real one is run in test_bench."""

    def __init__(self, clock: Clock, disabled: bool = False) -> None:
        self._timer: Callable[[], float] = clock
        self.disabled, self.has_error = disabled, False
        self.stats = SimpleNamespace(stats=SimpleNamespace(data=[]))

    def pedantic(self, target: Any, setup: Any, teardown: Any, rounds: int) -> None:
        for _ in range(1 if self.disabled else rounds):
            setup()
            start = self._timer()
            target()
            self.stats.stats.data.append(self._timer() - start)
            if not self.disabled:
                teardown()


def test_pairs_are_interleaved_a_b_b_a() -> None:
    clock = Clock()
    race(FakeBenchmark(clock), clock.work("c", 1), clock.work("d", 2), "cpu", Plan(loops=2, dense_loops=1, pairs=4))
    assert clock.log == "dcc" + "ccd" + "dcc" + "ccd"


def test_seconds_are_per_call_whatever_the_loops() -> None:
    clock = Clock()
    pairs = race(FakeBenchmark(clock), clock.work("c", 1), clock.work("d", 2), "cpu", Plan(loops=3, dense_loops=5, pairs=6))
    assert pairs is not None
    assert pairs.seconds == pytest.approx([1] * 6)
    assert pairs.dense_seconds == pytest.approx([2] * 6)
    assert pairs.speedup == pytest.approx((2, 2, 2))


def test_each_arm_settles_untimed_before_its_clock_starts() -> None:
    clock = Clock()
    plan = Plan(loops=2, dense_loops=1, pairs=2, settle=1, dense_settle=2)
    pairs = race(FakeBenchmark(clock), clock.work("c", 1), clock.work("d", 2), "cpu", plan)
    assert clock.log == "ddd" + "c" + "cc" + "c" + "cc" + "ddd"
    assert pairs is not None
    assert pairs.seconds == pytest.approx([1] * 2)
    assert pairs.dense_seconds == pytest.approx([2] * 2)


def test_a_slower_candidate_has_a_speedup_below_1() -> None:
    assert Race([4.0] * 6, [2.0] * 6).speedup.median == 0.5


def test_drift_over_the_run_leaves_the_ratio_alone() -> None:
    clock = Clock()

    def drifting(name: str, seconds: float) -> Callable[[], None]:
        def run() -> None:
            clock.work(name, seconds * (1 + clock.now / 100))()

        return run

    pairs = race(FakeBenchmark(clock), drifting("c", 1), drifting("d", 2), "cpu", Plan(1, 1, 20))
    assert pairs is not None
    assert pairs.seconds[-1] > 1.5 * pairs.seconds[0]
    assert pairs.speedup.median == pytest.approx(2, rel=0.02)


def test_disabled_runs_each_once_and_times_nothing() -> None:
    clock = Clock()
    assert race(FakeBenchmark(clock, disabled=True), clock.work("c", 1), clock.work("d", 1), "cpu") is None
    assert clock.log == "dc"


def test_an_interrupted_case_is_marked_so_that_it_is_not_saved() -> None:
    clock = Clock()
    benchmark = FakeBenchmark(clock)

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        race(benchmark, interrupted, clock.work("d", 1), "cpu", Plan(1, 1, 6))
    assert benchmark.has_error


def plan_for(monkeypatch: pytest.MonkeyPatch, own: float, dense: float, cold: float = 0.0) -> Plan:
    clock = Clock()
    monkeypatch.setattr("bench.pairing.time.perf_counter", clock)

    def first_is_cold(name: str, seconds: float) -> Callable[[], None]:
        calls = iter([cold])

        def run() -> None:
            clock.work(name, seconds + next(calls, 0.0))()

        return run

    return warm_up(first_is_cold("c", own), first_is_cold("d", dense), "cpu")


@pytest.mark.parametrize("own", [1e-6, 1e-4, 1e-2, 1])
@pytest.mark.parametrize("dense", [1e-6, 1e-4, 1e-2, 1])
def test_rounds_are_long_against_the_clock_and_pairs_enough(monkeypatch: pytest.MonkeyPatch, own: float, dense: float) -> None:
    plan = plan_for(monkeypatch, own, dense)
    assert plan.loops * own >= pairing.ROUND_SECONDS * 0.999
    assert plan.dense_loops * dense >= pairing.ROUND_SECONDS * 0.999
    assert MIN_PAIRS <= plan.pairs <= pairing.MAX_PAIRS
    assert plan.pairs % 2 == 0


def test_the_plan_does_not_come_from_a_cold_call(monkeypatch: pytest.MonkeyPatch) -> None:
    warm = 2**-13  # a power of two, so that the clock adds it up exactly
    assert plan_for(monkeypatch, warm, warm, cold=1.0) == plan_for(monkeypatch, warm, warm)


@given(st.lists(times, min_size=1, max_size=40))
def test_interval_holds_the_median_and_comes_from_the_sample(sample: list[float]) -> None:
    interval = median_interval(sample)
    assert interval.low <= interval.median <= interval.high
    assert {interval.low, interval.high} <= set(sample)
    assert interval.median == statistics.median(sample)


@given(st.lists(times, min_size=1, max_size=40), seeds)
def test_interval_does_not_depend_on_the_order(sample: list[float], seed: int) -> None:
    assert median_interval(random.Random(seed).sample(sample, len(sample))) == median_interval(sample)


@given(st.lists(times, min_size=6, max_size=40), st.floats(0.1, 10))
def test_interval_scales_with_the_sample(sample: list[float], factor: float) -> None:
    assert median_interval([value * factor for value in sample]) == pytest.approx([v * factor for v in median_interval(sample)])


def test_interval_of_known_sizes() -> None:
    # Order statistics of the 95 % sign-test interval, as tabulated: 1 and 6 of 6, 2 and 9 of 10, 6 and 15 of 20.
    for n, low, high in ((6, 1, 6), (8, 1, 8), (9, 2, 8), (10, 2, 9), (20, 6, 15)):
        assert median_interval(range(1, n + 1))[1:] == (low, high)


@pytest.mark.parametrize("n", [6, 7, 12, 20])
@pytest.mark.parametrize("shape", ["normal", "heavy", "bimodal"])
def test_interval_covers_the_true_median_as_stated(n: int, shape: str) -> None:
    draw = random.Random(0)

    def value() -> float:
        if shape == "normal":
            return draw.lognormvariate(0, 0.1)
        if shape == "heavy":
            return draw.paretovariate(1) / 2
        return draw.choice([draw.uniform(0, 1), draw.uniform(1, 9)])

    trials = 4000
    intervals = [median_interval([value() for _ in range(n)]) for _ in range(trials)]
    covered = sum(interval.low <= 1 <= interval.high for interval in intervals) / trials
    assert covered >= 0.95 - 0.01  # three standard deviations of 4,000 trials
