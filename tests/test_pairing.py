from collections.abc import Callable

import pytest

from bench import pairing
from bench.pairing import MIN_PAIRS, Plan, Race, race, warm_up


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


def test_pairs_are_interleaved_a_b_b_a() -> None:
    clock = Clock()
    race(clock.work("c", 1), clock.work("d", 2), "cpu", Plan(loops=2, dense_loops=1, pairs=4), clock)
    assert clock.log == "dcc" + "ccd" + "dcc" + "ccd"


def test_seconds_are_per_call_whatever_the_loops() -> None:
    clock = Clock()
    pairs = race(clock.work("c", 1), clock.work("d", 2), "cpu", Plan(loops=3, dense_loops=5, pairs=6), clock)
    assert pairs.seconds == pytest.approx([1] * 6)
    assert pairs.dense_seconds == pytest.approx([2] * 6)
    assert pairs.speedups == pytest.approx([2] * 6)


def test_each_arm_settles_untimed_before_its_clock_starts() -> None:
    clock = Clock()
    plan = Plan(loops=2, dense_loops=1, pairs=2, settle=1, dense_settle=2)
    pairs = race(clock.work("c", 1), clock.work("d", 2), "cpu", plan, clock)
    assert clock.log == "ddd" + "c" + "cc" + "c" + "cc" + "ddd"
    assert pairs.seconds == pytest.approx([1] * 2)
    assert pairs.dense_seconds == pytest.approx([2] * 2)


def test_a_slower_candidate_has_a_speedup_below_1() -> None:
    assert Race([4.0] * 6, [2.0] * 6).speedup == 0.5


def test_drift_over_the_run_leaves_the_ratio_alone() -> None:
    clock = Clock()

    def drifting(name: str, seconds: float) -> Callable[[], None]:
        def run() -> None:
            clock.work(name, seconds * (1 + clock.now / 100))()

        return run

    pairs = race(drifting("c", 1), drifting("d", 2), "cpu", Plan(1, 1, 20), clock)
    assert pairs.seconds[-1] > 1.5 * pairs.seconds[0]
    assert pairs.speedup == pytest.approx(2, rel=0.02)


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
