"""The engine over processes, with bodies of its own: the names of functions in this module."""

import os
import signal
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.cases import Case
from bench.engine.jobs import Effort, Job, Results, plan_text
from bench.engine.pairing import Plan, Racer
from bench.engine.processes import Means, fork_server_for, measure_all
from bench.runs.outcome import Outcome, Race
from bench.statistics.verdicts import is_clear
from bench.works.once_per_run import KNOWN, once_per_run
from sparse_models.errors import GateError

ONCE = Plan(1, 1, pairs=6)


def work() -> None:
    """Run long enough for a clock."""
    sum(range(1000))


def fine(case: Case, race: Racer) -> dict[str, Any]:
    race(work, work, "cpu", ONCE)
    pools = {name: value for name, value in os.environ.items() if name.endswith("_NUM_THREADS")}
    return {"pid": os.getpid(), "sparsity": case.sparsity, "environment": pools}


def red_gate(case: Case, race: Racer) -> dict[str, Any]:
    raise GateError("the layer is wrong; nothing is timed")


def broken(case: Case, race: Racer) -> dict[str, Any]:
    raise ZeroDivisionError("no such number")


def killed(case: Case, race: Racer) -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def leaves(case: Case, race: Racer) -> dict[str, Any]:
    print("last words", file=sys.stderr, flush=True)
    os._exit(3)


def interrupting(case: Case, race: Racer) -> dict[str, Any]:
    if "interrupting" in KNOWN:  # the second process
        os.kill(int(os.environ["ASKING"]), signal.SIGINT)
        time.sleep(60)
    KNOWN["interrupting"] = True
    return fine(case, race)


def finds(case: Case, race: Racer) -> dict[str, Any]:
    return fine(case, race) | {"found_by": pid_of_finder()}


@once_per_run
def searched_for_nothing() -> None:  # as a gate that is passed
    KNOWN["searched"] = KNOWN.get("searched", 0) + 1


@once_per_run
def pid_of_finder() -> int:
    return os.getpid()


def job(function: Any, number: int = 0, op: str = "forward", seed: int = 0) -> Job:
    case = Case(op, "sparse", "csr", "static", "8x8b4", number / 100, "cpu", "float32", 1, seed=seed)
    return Job(f"{function.__name__}{number}-{seed}", function.__module__, function.__name__, case)


def measured(*jobs: Job, processes: int = 2, precision: float = 1e9, budget: float = 120.0) -> tuple[Results, list[str]]:
    told: list[str] = []
    with closing(fork_server_for(jobs)) as fork_server:
        return measure_all(jobs, Effort(processes, precision, budget), told.append, Means(fork_server)), told


def test_every_case_is_measured_once_in_every_process_each_a_fresh_one() -> None:
    results, told = measured(job(fine), job(fine, 50), processes=3)
    for number in (0, 50):
        outcome = results.outcomes[f"fine{number}-0"]
        assert [len(race.seconds) for race in outcome.races] == [6, 6, 6]
        assert outcome.facts["sparsity"] == number / 100
        assert outcome.processes == [0, 1, 2]
        assert outcome.facts["pid"] != os.getpid()
        # One thread was asked for, and every library is told so as it loads.
        assert {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"} <= set(outcome.facts["environment"])
        assert set(outcome.facts["environment"].values()) == {"1"}
        assert all(part.endswith(" 1") for part in outcome.facts["pools"].split(", "))
    assert len(told) == 3
    assert told[0].startswith("process 1 of 3: 2 cases in ")


def test_a_case_that_fails_or_dies_takes_no_other_down() -> None:
    others = [job(fine, number) for number in range(6)]
    absent = job(fine)._replace(name="absent", module="no_such_module")
    results, _ = measured(*others, job(killed), job(leaves), job(broken), job(red_gate), absent, processes=1)
    failures = {name: outcome.failure for name, outcome in results.outcomes.items()}
    assert failures["red_gate0-0"] == "the layer is wrong; nothing is timed"
    assert failures["absent"] == "ModuleNotFoundError: No module named 'no_such_module'"
    assert failures["broken0-0"] == "ZeroDivisionError: no such number"
    assert failures["killed0-0"] == "the process that measured this case died (signal SIGKILL): no message"
    assert failures["leaves0-0"] == "the process that measured this case died (exit code 3): last words"
    for other in others:
        assert failures[other.name] is None
        assert len(results.outcomes[other.name].races) == 1


def test_a_process_that_cannot_start_fails_all_cases_with_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    results, _ = measured(job(fine), job(fine, 1), processes=1)
    for outcome in results.outcomes.values():
        assert outcome.failure is not None
        assert "no torch here" in outcome.failure


def test_what_one_process_found_out_the_next_knows() -> None:
    results, _ = measured(job(finds), processes=2)
    outcome = results.outcomes["finds0-0"]
    assert len(outcome.races) == 2
    assert outcome.facts["found_by"] == outcome.facts["pid"]


def counts(case: Case, race: Racer) -> dict[str, Any]:
    searched_for_nothing()
    race(work, work, "cpu", Plan(1, 1, pairs=5 + int(KNOWN["searched"])))
    return {}


def test_that_nothing_was_found_is_known_too() -> None:
    results, _ = measured(job(counts), processes=3)
    # The search adds to the number of pairs, and no process but the first searches.
    assert [len(race.seconds) for race in results.outcomes["counts0-0"].races] == [6, 6, 6]


def test_trainings_run_once_each_in_the_process_of_their_seed() -> None:
    jobs = [job(fine, number, "train", seed) for number in range(2) for seed in range(3)]
    results, _ = measured(*jobs, processes=9)
    assert all(len(outcome.races) == 1 for outcome in results.outcomes.values())
    for seed in range(3):
        assert len({results.outcomes[f"fine{number}-{seed}"].facts["pid"] for number in range(2)}) == 1
    assert len({results.outcomes[f"fine0-{seed}"].facts["pid"] for seed in range(3)}) == 3


def test_the_budget_ends_the_run_but_every_case_has_a_result() -> None:
    results, _ = measured(job(fine), job(fine, 1), processes=9, budget=1e-3)
    assert results.out_of_time
    assert [len(outcome.races) for outcome in results.outcomes.values()] == [1, 1]


def test_ctrl_c_keeps_what_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASKING", str(os.getpid()))
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # run in the background, it may be ignored
    try:
        results, _ = measured(job(interrupting), processes=3)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert results.interrupted
    assert len(results.outcomes["interrupting0-0"].races) == 1


def outcome_of(speedups: list[float]) -> Outcome:
    outcome = Outcome()
    outcome.races = [Race([1.0], [value]) for value in speedups]
    return outcome


@given(st.lists(st.floats(0.1, 10), max_size=12), st.integers(1, 12))
def test_a_case_is_done_when_it_is_narrow_or_has_all_processes(speedups: list[float], processes: int) -> None:
    outcome = outcome_of(speedups)
    if processes <= 8:
        assert job(fine).is_done(outcome, Effort(processes, 1e9, 1.0)) == (len(speedups) >= processes)
    else:
        clear = len(speedups) >= 8 and is_clear(speedups)
        assert job(fine).is_done(outcome, Effort(processes, 1e9, 1.0)) == (clear or len(speedups) >= processes)
    assert job(fine).is_done(outcome, Effort(processes, 1e-12, 1.0)) == (
        len(speedups) >= processes or (len(speedups) >= 8 and job(fine).is_done(outcome, Effort(99, 1e-12, 1.0)))
    )


def test_the_plan_tells_cases_processes_and_time() -> None:
    text = plan_text([job(fine), job(fine, 1)], Effort(9, 0.05, 20.0))
    assert text.startswith("2 cases in up to 9 fresh processes, about ")
    assert "at most 20 s (--processes, --budget)" in text


def test_time_is_told_in_parts_that_add_up() -> None:
    start = time.monotonic()
    results, _ = measured(job(fine), processes=2)
    whole = time.monotonic() - start
    assert 0.9 * whole <= sum(results.spent) <= whole
    assert results.spent.timed < results.spent.starting


def test_a_pool_larger_than_the_threads_asked_for_fails_its_case() -> None:
    results, _ = measured(job(greedy), processes=1)
    failure = results.outcomes["greedy0-0"].failure
    assert failure is not None
    assert failure.startswith("expected every thread pool to keep to 1 threads, got ")


def greedy(case: Case, race: Racer) -> dict[str, Any]:
    torch.set_num_threads(3)
    return fine(case, race)


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
    results, _ = measured(job(disturbed), processes=2, precision=0.1, budget=1e-3)
    [race] = results.outcomes["disturbed0-0"].races
    assert len(race.seconds) == 6


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


def test_a_narrow_case_goes_on_until_a_verdict_is_possible() -> None:
    odd = [0.89, 0.9, 0.91, 0.9, 1.02, 0.9, 0.91, 0.89, 0.9]
    effort = Effort(12, 0.05, 1.0)
    assert not job(fine).is_done(outcome_of(odd), effort)
    assert job(fine).is_done(outcome_of([value for value in odd if value < 1]), effort)
    assert job(fine).is_done(outcome_of([1.0 + number / 1000 for number in range(8)]), effort)
