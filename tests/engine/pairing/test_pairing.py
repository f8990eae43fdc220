import random
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.engine import pairing
from bench.engine.pairing import CLEAN_PAIRS, Patience, Plan, plan_for, race, warm_up


@pytest.fixture(autouse=True, scope="module")
def undisturbed() -> Iterator[None]:
    """Where time is drawn, nothing waits: what the scheduler does with this process meanwhile is not asked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.engine.rounds.waits", dict)
        yield


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


@pytest.mark.parametrize(("is_reversed", "two"), [(False, "dcc" + "ccd"), (True, "ccd" + "dcc")])
def test_pairs_are_interleaved_a_b_b_a(is_reversed: bool, two: str) -> None:
    clock = Clock()
    plan = Plan(loops=2, dense_loops=1, pairs=4, is_reversed=is_reversed)
    race(clock.work("c", 1), clock.work("d", 2), "cpu", plan, clock)
    assert clock.log == two * 2


def test_what_is_looked_at_after_each_pair_is_not_timed() -> None:
    clock = Clock()
    plan = Plan(loops=1, dense_loops=1, pairs=3, after=clock.work("|", 99))
    pairs = race(clock.work("c", 1), clock.work("d", 2), "cpu", plan, clock)
    assert clock.log == "dc|cd|dc|"
    assert (pairs.seconds, pairs.dense_seconds) == ([1] * 3, [2] * 3)


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


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("regions", "dense_regions"), [(1, 8), (8, 1)])
def test_what_each_parallel_region_waits_for_a_neighbour_is_not_in_the_ratio(
    monkeypatch: pytest.MonkeyPatch, seed: int, regions: int, dense_regions: int
) -> None:
    """A neighbour has the cores for half of the time, and what starts a region then waits for a slice of 4 ms to end."""
    draw, clock = random.Random(seed), Clock()
    waited = [0.0]
    monkeypatch.setattr("bench.engine.rounds.waits", lambda: {"1": round(1e9 * waited[0])})
    for module in ("pairing", "rounds"):
        monkeypatch.setattr(f"bench.engine.{module}.time.perf_counter", clock)
    monkeypatch.setattr("bench.engine.pairing.Usage.waited_for_itself", lambda *_: False)
    taken = [draw.random() < 0.5 for _ in range(100_000)]

    def contended(seconds: float, regions: int) -> Callable[[], None]:
        def run() -> None:
            for _ in range(regions):
                start = clock.now
                while taken[int(clock.now / 4e-3) % len(taken)]:
                    clock.now = (int(clock.now / 4e-3) + 1.0001) * 4e-3
                waited[0] += clock.now - start
                clock.now += seconds / regions * draw.uniform(0.98, 1.02)

        return run

    pairs = race(contended(2e-4, regions), contended(3e-4, dense_regions), "cpu", Plan(5, 4, 3, 3), clock, Patience(0.2, 1e-9))
    assert CLEAN_PAIRS <= len(pairs.undisturbed) < len(pairs.seconds)
    assert pairs.speedup == pytest.approx(1.5, rel=0.02)


def test_what_waits_for_itself_is_visited_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    told_waits(monkeypatch, [float(number) for number in range(1000)])
    monkeypatch.setattr("bench.engine.pairing.Usage.waited_for_itself", lambda *_: True)
    clock = Clock()
    for module in ("pairing", "rounds"):
        monkeypatch.setattr(f"bench.engine.{module}.time.perf_counter", clock)
    pairs = race(clock.work("c", 1), clock.work("d", 1), "cpu", Plan(1, 1), clock, Patience(seconds=3.5))
    assert len(pairs.undisturbed) == len(pairs.seconds) == 2


def told_waits(monkeypatch: pytest.MonkeyPatch, seconds: list[float]) -> None:
    readings = iter(seconds)
    monkeypatch.setattr("bench.engine.rounds.waits", lambda: {"1": round(1e9 * next(readings)), "2": 0})


def test_a_round_knows_how_long_its_threads_had_no_core(monkeypatch: pytest.MonkeyPatch) -> None:
    told_waits(monkeypatch, [0.0, 0.0, 0.0, 0.25] + [0.25] * 4)  # before and after each of four rounds
    monkeypatch.setattr("bench.engine.pairing.Usage.waited_for_itself", lambda *_: False)
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


def cached(clock: Clock, slower: float, last: str = "") -> tuple[Callable[[], None], Callable[[], None]]:
    """Return candidate and reference, which take so many times as long after the other one as after themselves."""
    ran = [last]

    def arm(name: str) -> Callable[[], None]:
        def run() -> None:
            clock.work(name, 1 if ran[0] == name else slower)()
            ran[0] = name

        return run

    return arm("c"), arm("d")


@pytest.mark.parametrize("pairs", [2, 4, 6])
def test_neither_arm_gains_by_following_itself(pairs: int) -> None:
    """A call after the other arm's finds the caches full of the other's data, and takes three times as long."""
    clock = Clock()
    own, dense = cached(clock, 3)
    plan = plan_for(1e-2, 1e-2)._replace(pairs=pairs)
    assert race(own, dense, "cpu", plan, clock).speedups == [1] * pairs


@pytest.mark.parametrize("pairs", [2, 4, 8])
def test_calls_too_long_to_settle_favour_neither_arm_if_the_first_ran_last_before(pairs: int) -> None:
    clock = Clock()
    own, dense = cached(clock, 1.05, last="d")
    plan = plan_for(2e-2, 2e-2)._replace(pairs=pairs)
    assert (plan.settle, plan.dense_settle) == (0, 0)
    assert race(own, dense, "cpu", plan, clock).speedup == pytest.approx(1, abs=2e-3)


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


def test_beside_neighbours_by_intention_every_pair_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    told_waits(monkeypatch, [0.0, 0.5] * 8)
    clock = Clock()
    pairs = race(clock.work("c", 1), clock.work("d", 1), "cpu", Plan(1, 1, pairs=4), clock, is_alone=False)
    assert pairs.undisturbed == [0, 1, 2, 3]
