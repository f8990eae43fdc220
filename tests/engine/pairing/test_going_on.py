"""A candidate that is done sooner than the reference goes on alone until the reference's time is over."""

import itertools
from collections.abc import Callable

import pytest

from bench.engine.pairing import Plan, race
from bench.engine.rounds import Took
from sparse_models.errors import DivergedError
from tests.engine.pairing.test_pairing import Clock


@pytest.fixture(autouse=True)
def undisturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where time is drawn, nothing waits: what the scheduler does with this process meanwhile is not asked."""
    monkeypatch.setattr("bench.engine.rounds.waits", dict)


@pytest.mark.parametrize(("seconds", "calls"), [(1, 3), (1.5, 1), (2, 0), (3, 0), (0.25, 9), (0, 9)])
def test_the_candidate_goes_on_alone_until_the_reference_s_time_is_over(seconds: float, calls: int) -> None:
    clock = Clock()
    plan = Plan(loops=1, dense_loops=1, pairs=3, after=clock.work("|", 99), beyond=9)
    pairs = race(clock.work("c", seconds), clock.work("d", 2), "cpu", plan, clock)
    assert clock.log == "dc|cd|dc|" + "c|" * calls
    assert (pairs.seconds, pairs.dense_seconds, pairs.later) == ([seconds] * 3, [2] * 3, [seconds] * calls)
    assert pairs.timed == 6 + seconds * (3 + calls)
    assert pairs.later_waited == [0] * calls


def test_what_others_disturbed_takes_no_time_from_a_candidate_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, waited = Clock(), itertools.count(1)
    disturbed = {2, 9}  # rounds: the second is one of the candidate alone

    def step(name: str, seconds: float) -> Callable[[], None]:
        def run() -> None:
            clock.work(name, seconds + 70 * (next(rounds) in disturbed))()

        return run

    rounds = itertools.count()
    monkeypatch.setattr("bench.engine.rounds.longest", lambda *_: 100.0 * (next(waited) - 1 in disturbed))
    plan = Plan(loops=1, dense_loops=1, pairs=3, beyond=9)
    pairs = race(step("c", 1), step("d", 3), "cpu", plan, clock)
    assert (pairs.seconds, pairs.dense_seconds) == ([1, 71, 1], [3] * 3)
    assert pairs.later == [1, 1, 1, 71, 1, 1]
    assert pairs.mended.later == [1] * 6


def test_a_candidate_that_diverges_alone_ends_there() -> None:
    clock, calls = Clock(), itertools.count()

    def diverging() -> None:
        clock.work("c", 1)()
        if next(calls) == 5:
            raise DivergedError("expected finite losses, got nan")

    plan = Plan(loops=1, dense_loops=1, pairs=3, after=clock.work("|", 99), beyond=9)
    pairs = race(diverging, clock.work("d", 3), "cpu", plan, clock)
    assert clock.log == "dc|cd|dc|" + "c|" * 2 + "c"
    assert (pairs.seconds, pairs.later) == ([1] * 3, [1] * 2)


def test_what_a_gpu_s_host_took_is_told_of_pairs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {"own": Took(1.0, 0.5), "dense": Took(3.0, 0.25)}
    monkeypatch.setattr("bench.engine.pairing.time_round", lambda work, *_: taken[work()])
    pairs = race(lambda: "own", lambda: "dense", "cuda", Plan(1, 1, pairs=2, beyond=9))
    assert (pairs.host_seconds, pairs.dense_host_seconds, pairs.later) == ([0.5] * 2, [0.25] * 2, [1.0] * 4)
