"""The worker: it visits its cases again, and lets no thread pool grow; measured over processes, with bodies of its own."""

import os
import signal
import time
from typing import Any

import pytest
import torch

from bench.cases import Case
from bench.engine import timed, worker
from bench.engine.pairing import Patience, Racer
from bench.engine.worker import failure_of, visits
from bench.machine.cores import Cores
from bench.runs.outcome import Race
from bench.works.once_per_run import KNOWN
from sparse_models.errors import DivergedError
from tests.engine.test_processes import fine, job, measured


def test_a_pool_larger_than_the_threads_asked_for_fails_its_case() -> None:
    results, _ = measured(job(greedy), processes=1)
    failure = results.outcomes["greedy0-0"].failure
    assert failure is not None
    assert failure.startswith("expected every thread pool to keep to 1 threads, got ")


def greedy(case: Case, race: Racer) -> dict[str, Any]:
    torch.set_num_threads(3)
    return fine(case, race)


def test_a_training_that_diverges_is_told_as_such_and_ends_no_other() -> None:
    results, _ = measured(job(diverges, op="train"), job(fine), processes=1)
    assert results.outcomes["diverges0-0"].failure == "csr: expected finite losses, got nan"
    assert results.outcomes["fine0-0"].failure is None


def diverges(case: Case, race: Racer) -> dict[str, Any]:
    raise DivergedError("csr: expected finite losses, got nan")


def disturbed(case: Case, race: Racer) -> dict[str, Any]:
    """A case whose first two visits are useless: the pairs of the third, and of all later ones, agree."""
    KNOWN["visits"] = KNOWN.get("visits", 0) + 1
    spoiled = KNOWN["visits"] % 3
    clock = iter(range(10**6))
    times = [float(next(clock) % 7 + 1) * 1e-3 if spoiled else 1e-3 for _ in range(6)]
    race.race = Race(times, [1e-3] * 6)  # type: ignore[attr-defined]  # the worker's own
    return {}


def test_a_case_whose_pairs_disagree_is_visited_again_and_all_its_pairs_are_kept() -> None:
    results, _ = measured(job(disturbed), job(fine), processes=1, precision=0.1, budget=30.0)
    [race] = results.outcomes["disturbed0-0"].races
    # Two visits of six that disagree; then so many of six that do that the interval of all is narrow.
    assert len(race.seconds) > 18
    assert len(race.seconds) % 6 == 0
    assert results.outcomes["disturbed0-0"].processes == [0]


def test_without_time_left_no_case_is_visited_again() -> None:
    cases = [("", "", tuple(job(disturbed, number).case)) for number in range(3)]

    def visited(seconds: float) -> list[int]:
        numbers = []
        for number, pairs in visits(cases, Patience(precision=0.01), seconds):
            pairs[number] = pairs[number].joined(Race([1.0] * 6, [1.0, 2.0] * 3))
            numbers.append(number)
            if len(numbers) == 9:
                break
        return numbers

    assert visited(-1.0) == [0, 1, 2]
    assert visited(60.0) == [0, 1, 2] * 3


def test_a_training_is_never_taken_up_again() -> None:
    results, _ = measured(job(disturbed, op="train"), processes=1, precision=0.1)
    assert [len(race.seconds) for race in results.outcomes["disturbed0-0"].races] == [6]


def dies_on_return(case: Case, race: Racer) -> dict[str, Any]:
    if "returned" in KNOWN:
        os.kill(os.getpid(), signal.SIGKILL)
    KNOWN["returned"] = True
    race.race = Race([1.0, 2.0], [2.0, 1.0])  # type: ignore[attr-defined]
    return {}


def test_a_case_that_dies_when_it_comes_again_has_failed_and_no_other() -> None:
    results, _ = measured(job(dies_on_return), job(fine), processes=1, precision=1e-9)
    assert results.outcomes["dies_on_return0-0"].failure == (
        "the process that measured this case died (signal SIGKILL): no message"
    )
    assert results.outcomes["fine0-0"].failure is None
    assert len(results.outcomes["fine0-0"].races) == 1


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


def test_a_failure_is_a_line_and_one_without_a_message_says_where_it_came_from() -> None:
    assert failure_of(raised(ValueError("\n  the reason\nand a thousand lines"))) == "ValueError: the reason"
    assert len(failure_of(raised(ValueError("x" * 10_000)))) < 600
    told = failure_of(raised(StopIteration()))
    assert told.startswith("StopIteration in raised, test_worker.py line ")


def test_cores_are_claimed_by_as_many_threads_as_a_case_has_and_released_whatever_becomes_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []

    class Told(Cores):
        def claim(self) -> None:
            told.append("claim")

        def release(self) -> None:
            told.append("release")

    for module in (worker, timed):
        monkeypatch.setattr(module, "TEAMS", Told())
    monkeypatch.setattr(timed, "KNOWN", {timed.SHARED: True})
    monkeypatch.setattr(worker, "limit_threads", lambda threads: told.append(f"{threads} threads"))
    broken = job(fine).case
    said = worker.measure("tests.engine.test_processes", "broken", broken, time.perf_counter, Patience())
    assert said["failure"] == "ZeroDivisionError: no such number"
    assert told == [f"{broken.threads} threads", "claim", "release"]
