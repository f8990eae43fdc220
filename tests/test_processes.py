"""The engine over processes, with bodies of its own: the names of functions in this module."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.cases import Case
from bench.memo import MEMO, remembered
from bench.pairing import Plan, Race, Racer
from bench.processes import Effort, Job, Outcome, Results, measure_all, plan_text
from sparse_models.errors import GateError

ONCE = Plan(1, 1, 2)


def work() -> None:
    """Run long enough for a clock."""
    sum(range(1000))


def fine(case: Case, race: Racer) -> dict[str, Any]:
    race(work, work, "cpu", ONCE)
    return {"pid": os.getpid(), "sparsity": case.sparsity}


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


def noisy(case: Case, race: Racer) -> dict[str, Any]:
    print("this is not a result")
    os.write(1, b"nor is this\n")
    return fine(case, race)


def interrupting(case: Case, race: Racer) -> dict[str, Any]:
    if "interrupting" in MEMO:  # the second process
        os.kill(os.getppid(), signal.SIGINT)
        time.sleep(60)
    MEMO["interrupting"] = True
    return fine(case, race)


def finds(case: Case, race: Racer) -> dict[str, Any]:
    return fine(case, race) | {"found_by": pid_of_finder()}


@remembered
def pid_of_finder() -> int:
    return os.getpid()


def job(function: Any, number: int = 0, op: str = "forward", seed: int = 0) -> Job:
    case = Case(op, "sparse", "csr", "static", "8x8b4", number / 100, "cpu", "float32", 1, seed=seed)
    return Job(f"{function.__name__}{number}-{seed}", __name__, function.__name__, case)


def measured(*jobs: Job, processes: int = 2, precision: float = 1e-9, budget: float = 120.0) -> tuple[Results, list[str]]:
    told: list[str] = []
    return measure_all(jobs, Effort(processes, precision, budget), told.append), told


def test_every_case_is_measured_once_in_every_process_each_a_fresh_one() -> None:
    results, told = measured(job(fine), job(fine, 50), processes=3)
    for number in (0, 50):
        outcome = results.outcomes[f"fine{number}-0"]
        assert [len(race.seconds) for race in outcome.races] == [2, 2, 2]
        assert outcome.facts["sparsity"] == number / 100
        assert outcome.facts["pid"] != os.getpid()
    assert len(told) == 3
    assert told[0].startswith("process 1 of 3: 2 cases in ")


def test_a_case_that_fails_or_dies_takes_no_other_down() -> None:
    others = [job(fine, number) for number in range(6)]
    results, _ = measured(*others, job(killed), job(leaves), job(broken), job(red_gate), processes=1)
    failures = {name: outcome.failure for name, outcome in results.outcomes.items()}
    assert failures["red_gate0-0"] == "the layer is wrong; nothing is timed"
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


def test_what_a_case_prints_is_not_taken_for_a_result() -> None:
    results, _ = measured(job(noisy), processes=1)
    assert len(results.outcomes["noisy0-0"].races) == 1


def test_what_one_process_found_out_the_next_knows() -> None:
    results, _ = measured(job(finds), processes=2)
    outcome = results.outcomes["finds0-0"]
    assert len(outcome.races) == 2
    assert outcome.facts["found_by"] == outcome.facts["pid"]


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


def test_ctrl_c_keeps_what_is_complete() -> None:
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
    assert outcome.done(job(fine), Effort(processes, 1e9, 1.0)) == (len(speedups) >= min(8, processes))
    assert outcome.done(job(fine), Effort(processes, 1e-12, 1.0)) == (
        len(speedups) >= processes or (len(speedups) >= 8 and outcome.done(job(fine), Effort(99, 1e-12, 1.0)))
    )


def test_the_plan_tells_cases_processes_and_time() -> None:
    text = plan_text([job(fine), job(fine, 1)], Effort(9, 0.05, 20.0))
    assert text.startswith("2 cases in up to 9 fresh processes, about ")
    assert "at most 20 s (--processes, --budget)" in text
