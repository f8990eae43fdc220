"""A visit ends when its pairs agree, by the clock, later where other processes disturbed most of them, after whole turns."""

import math
import statistics
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.engine.pairing import CLEAN_PAIRS, LONGER, MAX_PAIRS, MIN_PAIRS, Patience, Plan, race
from bench.machine.cores import Cores
from bench.runs.outcome import Race
from bench.statistics.intervals import median_interval
from bench.works.replays import in_turn
from tests.engine.pairing.test_pairing import Clock, told_waits

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


def test_pairs_satisfy_by_those_that_count() -> None:
    alike = Race([1.0] * 12, [2.0] * 12, waited=[0.0] * 12, dense_waited=[0.0] * 12)
    assert Patience().is_satisfied(alike)
    assert not Patience().is_satisfied(alike._replace(dense_waited=[0.5] * 12))
    assert not Patience().is_satisfied(alike._replace(dense_waited=[0.0] * 5 + [0.5] * 7))
    assert Patience().is_satisfied(alike._replace(dense_waited=[0.0] * 6 + [0.1, 0.5] * 3))


def test_a_visit_goes_on_for_pairs_that_count_and_not_for_ever() -> None:
    patience = Patience(1.0, 1e-9)

    def spending(*waited: float) -> float:
        pairs = Race(
            [1.0] * len(waited), [2.0 + n for n in range(len(waited))], waited=waited, dense_waited=[0.0] * len(waited)
        )
        return next(spent for spent in (0.5, *map(float, range(1, 100))) if patience.is_over(pairs, spent))

    assert spending(0.0, 0.0) == 1  # as long as on a quiet machine
    assert spending(0.0, 0.5) == LONGER
    assert spending(*[0.5] * 20) == LONGER
    assert spending(*[0.5] * 20, *[0.0] * CLEAN_PAIRS) == 1
    waits = [0.5] * LONGER * MAX_PAIRS
    assert patience.is_over(Race([1.0] * len(waits), [1.0] * len(waits), waited=waits, dense_waited=waits), 0.0)


def test_arms_that_settle_have_two_rounds_a_turn_and_each_goes_first_as_often(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    for module in ("pairing", "rounds"):
        monkeypatch.setattr(f"bench.engine.{module}.time.perf_counter", clock)
    plan = Plan(loops=1, dense_loops=1, settle=1, dense_settle=2)
    pairs = race(clock.work("c", 1), clock.work("d", 2), "cpu", plan, clock, Patience(seconds=0.0, precision=0.0))
    assert clock.log == "dd" + "dd" + "c" + "cc" + "cc" + "dd" + "dd"
    assert (pairs.seconds, pairs.dense_seconds) == ([1] * 4, [2] * 4)


@pytest.mark.parametrize(("settle", "log"), [(0, "dc" + "cd"), (1, "d" + "cc" + "cd")])
def test_where_one_takes_so_long_as_to_do_without_each_has_one_round_a_turn(
    monkeypatch: pytest.MonkeyPatch, settle: int, log: str
) -> None:
    clock = Clock()
    for module in ("pairing", "rounds"):
        monkeypatch.setattr(f"bench.engine.{module}.time.perf_counter", clock)
    plan = Plan(loops=1, dense_loops=1, settle=settle)
    race(clock.work("c", 1), clock.work("d", 20), "cpu", plan, clock, Patience(seconds=0.0, precision=0.0))
    assert clock.log == log


@pytest.mark.parametrize("is_reversed", [True, False])
@pytest.mark.parametrize("dropped", [None, 0, 5])
def test_drift_is_not_in_the_ratio_where_each_has_two_rounds_a_turn_but_for_that_of_two_rounds_where_a_pair_does_not_count(
    monkeypatch: pytest.MonkeyPatch, dropped: int | None, *, is_reversed: bool
) -> None:
    clock = Clock()
    for module in ("pairing", "rounds"):
        monkeypatch.setattr(f"bench.engine.{module}.time.perf_counter", clock)

    def drifting(seconds: float) -> Callable[[], None]:
        def run() -> None:
            clock.now += seconds * math.exp(clock.now / 1000)

        return run

    plan = Plan(1, 1, settle=1, dense_settle=1, is_reversed=is_reversed)
    pairs = race(drifting(1), drifting(1.1), "cpu", plan, clock, Patience(seconds=50.0, precision=0.0))
    waited = [0.5 * (number == dropped) for number in range(len(pairs.seconds))]
    speedups = pairs._replace(waited=waited, dense_waited=[0.0] * len(waited)).speedups
    assert len(speedups) == len(waited) - (dropped is not None) >= 15
    a_round = 3e-3  # by which it has slowed a round later, with the call before that is untimed: at most
    assert statistics.median(speedups) == pytest.approx(1.1, rel=(2 if dropped is not None else 0.2) * a_round)


def test_the_first_rounds_of_both_make_a_pair_and_the_second_rounds_another() -> None:
    clock = Clock()
    own = in_turn([clock.work("", seconds) for seconds in (0, 1, 2, 3, 4)])
    dense = in_turn([clock.work("", seconds) for seconds in (0, 10, 40, 0, 90, 160)])
    plan = Plan(1, 1, settle=1, dense_settle=1)  # the calls of no time are those by which it settles
    pairs = race(own, dense, "cpu", plan, clock, Patience(seconds=0.0, precision=0.0))
    assert (pairs.seconds, pairs.dense_seconds) == ([1, 2, 3, 4], [10, 40, 90, 160])


class Counted(Cores):
    """Cores that only tell when they were claimed, and what was saved up on them."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[float | str] = []

    def claim(self) -> None:
        self.told.append("claim")
        self.are_claimed = True

    def save_up(self, seconds: float) -> None:
        self.told.append(seconds)


@pytest.mark.parametrize(
    ("waited", "itself", "claims"), [([0.0, 0.0], False, 0), ([0.0, 0.5], False, 1), ([0.0, 0.5], True, 0)]
)
def test_cores_are_claimed_once_half_of_the_pairs_are_disturbed_by_others(
    monkeypatch: pytest.MonkeyPatch, waited: list[float], *, itself: bool, claims: int
) -> None:
    told_waits(monkeypatch, waited * 8)
    monkeypatch.setattr("bench.engine.pairing.Usage.waited_for_itself", lambda *_: itself)
    clock, cores = Clock(), Counted()
    race(clock.work("c", 1), clock.work("d", 1), "cpu", Plan(1, 1, pairs=4), clock, cores=cores)
    assert cores.told.count("claim") == claims


def test_what_a_turn_takes_is_saved_up_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, cores = Clock(), Counted()
    for module in ("pairing", "rounds"):
        monkeypatch.setattr(f"bench.engine.{module}.time.perf_counter", clock)
    cores.are_claimed = True
    plan = Plan(loops=3, dense_loops=1, settle=2, dense_settle=1, seconds=1.0, dense_seconds=5.0)
    race(clock.work("c", 1), clock.work("d", 5), "cpu", plan, clock, Patience(0.0, 0.0), cores=cores)
    assert cores.told == [15.0, 8.0, 6.0, 15.0]  # settled calls too, where the other ran last
    cores.told.clear()
    race(clock.work("c", 1), clock.work("d", 5), "cpu", Plan(3, 1, pairs=2), clock, cores=cores)
    assert cores.told == [0.0, 0.0, 3.0, 5.0]  # until something is known
