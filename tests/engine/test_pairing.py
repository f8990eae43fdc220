import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.engine import pairing
from bench.engine.pairing import MAX_PAIRS, MIN_PAIRS, Patience, Plan, plan_for, race, warm_up
from bench.runs.outcome import Race
from bench.statistics.intervals import median_interval


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
    assert clock.log == "ddd" + "c" + "cc" + "cc" + "ddd"  # not where it follows itself
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

    pairs = race(drifting("c", 1), drifting("d", 2), "cpu", Plan(1, 1, pairs=20), clock)
    assert pairs.seconds[-1] > 1.5 * pairs.seconds[0]
    assert pairs.speedup == pytest.approx(2, rel=0.02)


def warmed_up(monkeypatch: pytest.MonkeyPatch, own: float, dense: float, cold: float = 0.0) -> Plan:
    clock = Clock()
    monkeypatch.setattr("bench.engine.pairing.time.perf_counter", clock)

    def first_is_cold(name: str, seconds: float) -> Callable[[], None]:
        calls = iter([cold])

        def run() -> None:
            clock.work(name, seconds + next(calls, 0.0))()

        return run

    return warm_up(first_is_cold("c", own), first_is_cold("d", dense), "cpu")


@pytest.mark.parametrize("own", [1e-6, 1e-4, 1e-2, 1])
@pytest.mark.parametrize("dense", [1e-6, 1e-4, 1e-2, 1])
def test_rounds_are_long_against_the_clock(monkeypatch: pytest.MonkeyPatch, own: float, dense: float) -> None:
    plan = warmed_up(monkeypatch, own, dense)
    assert plan.loops * own >= pairing.ROUND_SECONDS * 0.999
    assert plan.dense_loops * dense >= pairing.ROUND_SECONDS * 0.999
    assert plan.pairs is None


def test_the_timed_seconds_are_those_of_all_rounds() -> None:
    clock = Clock()
    plan = Plan(loops=3, dense_loops=5, settle=2, dense_settle=2, pairs=4)
    assert race(clock.work("c", 1), clock.work("d", 2), "cpu", plan, clock).timed == pytest.approx(4 * (3 * 1 + 5 * 2))


speedups = st.lists(st.floats(0.1, 10), min_size=0, max_size=40)


@given(speedups, st.floats(0, 2), st.floats(0.001, 1))
def test_patience_ends_on_whole_swaps_by_time_or_by_a_narrow_interval(
    sample: list[float], spent: float, precision: float
) -> None:
    over = Patience(1.0, precision).is_over(Race([1.0] * len(sample), sample), spent)
    if len(sample) < MIN_PAIRS or len(sample) % 2:
        assert not over
    elif spent >= 1.0:
        assert over
    else:
        assert over == (len(sample) >= 6 and median_interval(sample).half_width <= precision)


def test_patience_ends_though_no_interval_is_narrow_and_no_clock_moves() -> None:
    sample = [0.1, 10.0] * (MAX_PAIRS // 2)
    assert Patience(1.0, 0.01).is_over(Race([1.0] * MAX_PAIRS, sample), 0.0)
    assert not Patience(1.0, 0.01).is_over(Race([1.0] * (MAX_PAIRS - 2), sample[2:]), 0.0)


def test_pairs_that_another_process_disturbed_do_not_count_where_others_suffice() -> None:
    waited = [0.0, 0.5, 0.001, 0.0, 0.0, 0.015, 0.0, 0.0]
    dense_waited = [0.0, 0.0, 0.02, 0.9, 0.0, 0.0, 0.01, 0.0]
    pairs = Race([1.0] * 8, [2.0, 9.0, 2.0, 9.0, 4.0, 2.0, 2.0, 4.0], waited=waited, dense_waited=dense_waited)
    assert pairs.counted == pairs.undisturbed == [0, 2, 4, 5, 6, 7]
    assert pairs.speedups == [2, 2, 4, 2, 2, 4]
    assert pairs.speedup == pairs.median("dense_seconds") == 2
    few = pairs._replace(waited=[0.03, *waited[1:]])
    assert few.undisturbed == [2, 4, 5, 6, 7]
    assert few.counted == list(range(8))


def test_where_disturbed_pairs_count_it_is_without_the_time_that_their_threads_had_no_core() -> None:
    pairs = Race([2.0, 1.0, 1.0], [3.0, 6.0, 2.0], waited=[0.5, 0.02, 0.0], dense_waited=[0.0, 0.5, 0.03])
    assert pairs.times("seconds") == [1.0, 1.0, 1.0]
    assert pairs.times("dense_seconds") == [3.0, 3.0, pytest.approx(2 * 0.97)]
    assert pairs.speedups == pairs.times("dense_seconds")
    # A wait that is told in a round may be longer than the round itself, which it then says nothing of.
    assert Race([1.0], [1.0], waited=[5.0], dense_waited=[0.0]).times("seconds") == [pytest.approx(0.1)]
    assert Race([2.0], [3.0]).speedup == 1.5


def test_pairs_satisfy_by_those_that_count() -> None:
    alike = Race([1.0] * 12, [2.0] * 12, waited=[0.0] * 12, dense_waited=[0.0] * 12)
    assert Patience().is_satisfied(alike)
    assert Patience().is_satisfied(alike._replace(dense_waited=[0.5] * 12))  # all alike, and so are they less the waits
    assert not Patience().is_satisfied(alike._replace(dense_waited=[0.1, 0.5] * 6))
    assert Patience().is_satisfied(alike._replace(dense_waited=[0.0] * 6 + [0.1, 0.5] * 3))


def told_waits(monkeypatch: pytest.MonkeyPatch, seconds: list[float]) -> None:
    readings = iter(seconds)
    monkeypatch.setattr("bench.engine.rounds.waits", lambda: {"1": round(1e9 * next(readings)), "2": 0})


def test_a_round_knows_how_long_its_threads_had_no_core(monkeypatch: pytest.MonkeyPatch) -> None:
    told_waits(monkeypatch, [0.0, 0.0, 0.0, 0.25] + [0.25] * 4)  # before and after each of four rounds
    clock = Clock()
    monkeypatch.setattr("bench.engine.rounds.time.perf_counter", clock)
    pairs = race(clock.work("c", 1), clock.work("d", 1), "cpu", Plan(1, 1, pairs=2), clock)
    assert pairs.waited == [0.25, 0.0]
    assert pairs.dense_waited == [0.0, 0.0]


def test_a_work_whose_own_threads_wait_for_one_another_pays_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    told_waits(monkeypatch, [0.0, 0.5] * 4)
    monkeypatch.setattr("bench.engine.pairing.Usage.waited_for_itself", lambda *_: True)
    clock = Clock()
    pairs = race(clock.work("c", 1), clock.work("d", 1), "cpu", Plan(1, 1, pairs=2), clock)
    assert pairs.waited == pairs.dense_waited == [0.0, 0.0]


@pytest.mark.parametrize("pairs", [2, 4, 6])
def test_neither_arm_gains_by_following_itself(pairs: int) -> None:
    """A call after the other arm's finds the caches full of the other's data, and takes three times as long."""
    clock, last = Clock(), [""]

    def cached(name: str) -> Callable[[], None]:
        def run() -> None:
            clock.work(name, 1 if last[0] == name else 3)()
            last[0] = name

        return run

    plan = plan_for(1e-2, 1e-2)._replace(pairs=pairs)
    assert race(cached("c"), cached("d"), "cpu", plan, clock).speedups == [1] * pairs


def test_visits_of_one_process_join_in_order() -> None:
    joined = Race([1.0], [2.0], 3.0, [0.0]).joined(Race([4.0, 5.0], [6.0, 7.0], 8.0, [0.5, 0.25]))
    assert joined == ([1, 4, 5], [2, 6, 7], 11, [0, 0.5, 0.25], [], [], [])


@given(st.floats(1e-6, 0.1), st.floats(0.7, 1.4))
def test_works_alike_are_treated_alike(dense: float, ratio: float) -> None:
    plan = plan_for(dense * ratio, dense)
    assert plan.loops == plan.dense_loops
    assert (plan.settle == 0) == (plan.dense_settle == 0)


def test_caches_are_emptied_before_every_call_and_that_is_not_timed() -> None:
    clock = Clock()
    plan = Plan(loops=3, dense_loops=4, settle=1, dense_settle=1, pairs=2)
    pairs = race(clock.work("c", 1), clock.work("d", 2), "cpu", plan, clock, evict=clock.work("e", 10))
    assert clock.log == "ed" + "ec" + "ec" + "ed"
    assert pairs.speedups == [2, 2]


@pytest.mark.parametrize("seed", range(20))
def test_a_core_taken_for_slices_of_time_leaves_the_median_alone(seed: int) -> None:
    """Another process takes a core for 4 ms out of every 8 on average, and what runs meanwhile takes three times as long."""
    draw, clock = random.Random(seed), Clock()
    taken = [draw.random() < 0.5 for _ in range(100_000)]

    def contended(seconds: float) -> Callable[[], None]:
        def run() -> None:
            clock.now += seconds * (3 if taken[int(clock.now / 4e-3) % len(taken)] else 1) * draw.uniform(0.98, 1.02)

        return run

    pairs = race(contended(1e-4), contended(1.1e-4), "cpu", Plan(10, 10, 3, 3, pairs=64), clock)
    assert pairs.speedup == pytest.approx(1.1, rel=0.1)


def test_the_plan_does_not_come_from_a_cold_call(monkeypatch: pytest.MonkeyPatch) -> None:
    warm = 2**-13  # a power of two, so that the clock adds it up exactly
    assert warmed_up(monkeypatch, warm, warm, cold=1.0) == warmed_up(monkeypatch, warm, warm)
