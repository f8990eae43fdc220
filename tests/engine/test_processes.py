"""The engine over processes, with bodies of its own: the names of functions in this module."""

import os
import re
import signal
import sys
import time
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import pytest

from bench.cases import Case
from bench.engine import worker
from bench.engine.jobs import Effort, Job, Results, Spent
from bench.engine.pairing import Patience, Plan, Racer
from bench.engine.processes import Means, fork_server_for, measure_all
from bench.engine.timed import Timed
from bench.runs.outcome import Race
from bench.works.once_per_run import KNOWN, once_per_run
from sparse_models.errors import GateError

ONCE = Plan(1, 1, pairs=6)
pytestmark = pytest.mark.alone


def work() -> None:
    """Run long enough for a clock."""
    sum(range(1000))


def fine(case: Case, race: Racer) -> dict[str, Any]:
    race(work, work, "cpu", ONCE)
    pools = {name: value for name, value in os.environ.items() if name.endswith("_NUM_THREADS")}
    return {"pid": os.getpid(), "sparsity": case.sparsity, "environment": pools}


def still(case: Case, race: Racer) -> dict[str, Any]:
    """A case that nothing disturbs, so that no process comes back to it."""
    race.race = Race([1e-3] * 6, [1e-3] * 6)  # type: ignore[attr-defined]  # the worker's own
    return {}


def red_gate(case: Case, race: Racer) -> dict[str, Any]:
    raise GateError("the layer is wrong; nothing is timed")


def broken(case: Case, race: Racer) -> dict[str, Any]:
    raise ZeroDivisionError("no such number")


def spoils(case: Case, race: Racer) -> dict[str, Any]:
    assert isinstance(race, Timed)
    race.is_spoiled = True
    return fine(case, race)


def killed(case: Case, race: Racer) -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def leaves(case: Case, race: Racer) -> dict[str, Any]:
    print("last words", file=sys.stderr, flush=True)
    os._exit(3)


def interrupting(case: Case, race: Racer) -> dict[str, Any]:
    if "interrupting" in KNOWN:  # the second process
        os.kill(int(case.data), signal.SIGINT)
        time.sleep(60)
    KNOWN["interrupting"] = True
    return still(case, race)


def finds(case: Case, race: Racer) -> dict[str, Any]:
    return fine(case, race) | {"found_by": pid_of_finder()}


@once_per_run
def pid_of_finder() -> int:
    return os.getpid()


def job(function: Any, number: int = 0, op: str = "forward", seed: int = 0, data: str = "-") -> Job:
    case = Case(op, "sparse", "csr", "static", "8x8b4", number / 100, "cpu", "float32", 1, seed=seed, data=data)
    return Job(f"{function.__name__}{number}-{seed}", function.__module__, function.__name__, case)


def naming(function: Any, what: object) -> Job:
    """Return a job whose case names something to it: told by its environment, it would need a fork server of its own."""
    return job(function, data=str(what))


def cases_of(progress: str) -> str:
    """Return which process a line of progress tells of, and how many cases it has."""
    return re.sub(r": \d+ of (\d+) case.*", r": \1", progress)


def measured(*jobs: Job, processes: int = 2, precision: float = 1e9, budget: float = 120.0) -> tuple[Results, list[str]]:
    told: list[str] = []
    with closing(fork_server_for(jobs)) as fork_server:
        return measure_all(jobs, Effort(processes, precision, budget), Means(fork_server, progress=told.append)), told


def test_every_case_is_measured_once_in_every_process_each_a_fresh_one() -> None:
    results, told = measured(job(fine), job(fine, 50), processes=3)
    for number in (0, 50):
        outcome = results.outcomes[f"fine{number}-0"]
        assert [len(race.seconds) % 6 for race in outcome.races] == [0, 0, 0]  # more in a visit that was disturbed
        assert outcome.facts["sparsity"] == number / 100
        assert outcome.processes == [0, 1, 2]
        assert outcome.facts["pid"] != os.getpid()
        # One thread was asked for, and every library is told so as it loads.
        assert {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"} <= set(outcome.facts["environment"])
        assert set(outcome.facts["environment"].values()) == {"1"}
        assert all(part.endswith(" 1") for part in outcome.facts["pools"].split(", "))
    assert told[0].startswith("process 1 of 3: 0 of 2 cases; 0 of 2 are done, at most ")
    assert "process 3 of 3: 2 of 2 case" in [text[:27] for text in told]


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


def test_a_process_that_a_case_spoiled_ends_after_it_and_another_goes_on() -> None:
    results, _ = measured(*(job(spoils, number) for number in range(3)), processes=2)
    for outcome in results.outcomes.values():
        assert outcome.failure is None
        assert len(outcome.races) == 2
    assert len({outcome.facts["pid"] for outcome in results.outcomes.values()}) == 3


def test_a_failure_on_a_gpu_ends_the_process_that_it_may_have_broken() -> None:
    on_gpu = Case("forward", "sparse", "csr", "static", "8x8b1", 0.5, "cuda", "float32", 1)
    for case in (on_gpu, on_gpu._replace(device="cpu")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(worker, "own_stream", lambda _: nullcontext())
            said = worker.measure(__name__, "broken", case, time.perf_counter, Patience())
        assert said == {"failure": "ZeroDivisionError: no such number", "spoiled": case.device == "cuda"}


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


@once_per_run
def searched_for_nothing() -> None:  # as a gate that is passed
    KNOWN["searched"] = KNOWN.get("searched", 0) + 1


def counts(case: Case, race: Racer) -> dict[str, Any]:
    searched_for_nothing()
    race(work, work, "cpu", Plan(1, 1, pairs=5 + int(KNOWN["searched"])))
    return {}


def test_that_nothing_was_found_is_known_too() -> None:
    results, _ = measured(job(counts), processes=3)
    # The search adds to the number of pairs, and no process but the first searches; what is disturbed is raced again.
    counted = [len(race.seconds) for race in results.outcomes["counts0-0"].races]
    assert len(counted) == 3
    assert all(pairs % 6 == 0 for pairs in counted)


def test_trainings_run_once_each_in_the_process_of_their_seed() -> None:
    jobs = [job(fine, number, "train", seed) for number in range(2) for seed in range(3)]
    results, _ = measured(*jobs, processes=9)
    assert all(len(outcome.races) == 1 for outcome in results.outcomes.values())
    for seed in range(3):
        assert len({results.outcomes[f"fine{number}-{seed}"].facts["pid"] for number in range(2)}) == 1
    assert len({results.outcomes[f"fine0-{seed}"].facts["pid"] for seed in range(3)}) == 3


def lasting(case: Case, race: Racer) -> dict[str, Any]:
    time.sleep(0.2)
    return fine(case, race)


def test_the_budget_is_a_bound_past_which_one_case_at_most_is_measured() -> None:
    measured(job(fine), processes=1)  # so that the fork server has begun, which may take longer than the budget
    results, _ = measured(*(job(lasting, number) for number in range(9)), processes=9, budget=1.2)
    assert results.out_of_time
    # The first process, which goes through all, has no more time than the budget.
    assert {len(outcome.races) for outcome in results.outcomes.values()} == {0, 1}


def test_ctrl_c_keeps_what_is_complete() -> None:
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # run in the background, it may be ignored
    try:
        results, _ = measured(naming(interrupting, os.getpid()), processes=3)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert results.interrupted
    assert len(results.outcomes["interrupting0-0"].races) == 1


def test_time_is_told_in_parts_that_add_up() -> None:
    start = time.monotonic()
    results, _ = measured(job(fine), processes=2)
    whole = time.monotonic() - start
    assert 0.9 * whole <= sum(results.spent) <= whole
    assert results.spent.timed < results.spent.starting
    assert [turn.which for turn in results.turns] == ["process 1 of 2", "process 2 of 2"]
    visits = [turn.visits for turn in results.turns]
    assert min(visits) >= 1  # more where one was disturbed
    assert sum((turn.spent for turn in results.turns), Spent()) == results.spent
    kinds = [(kind.which, kind.visits) for kind in results.kinds]
    assert kinds == list(zip(["forward csr, the first process", "forward csr, later"], visits, strict=True))
