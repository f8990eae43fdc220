"""What all processes of a run need to know is found before anything is timed, by a process for each core."""

import os
import time
from contextlib import closing
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from bench import bench_pruned, bench_train, grids
from bench.cases import Case
from bench.engine.jobs import Effort, Job
from bench.engine.pairing import Plan, Racer
from bench.engine.preparing import found_out, units_of
from bench.engine.processes import Means, fork_server_for
from bench.engine.reference_search import compiled_jobs, measure_against_best
from bench.models.pruned import prune
from bench.works import once_per_run, reference
from bench.works.compiled import COMPILED
from bench.works.once_per_run import KNOWN, find_once
from bench.works.problems import narrowed
from bench.works.reference import dense_case
from bench.works.replays import Works, listed
from bench.works.trained import experiment
from sparse_models.search import Search
from tests.engine.test_processes import fine

CASE = Case("forward", "sparse", "csr", "static", "8x8b4", 0.5, "cpu", "float32", 2)
pytestmark = pytest.mark.alone


def prepare(case: Case) -> None:
    """Find out, in each of two units, something that takes a while; another unit fails."""
    if case.layer == "masked":
        raise ZeroDivisionError
    if case.layer == "csr_linear":
        time.sleep(60)
    find_once(f"found {case.layer} {case.sparsity:g}", lambda: [os.getpid(), torch.get_num_threads()])
    time.sleep(0.2)


def told(case: Case, race: Racer) -> dict[str, Any]:
    return fine(case, race) | {"found": {name: found for name, found in KNOWN.items() if name.startswith("found")}}


def job(layer: str, sparsity: float = 0.5, *, function: Any = told) -> Job:
    return Job(f"{layer} {sparsity:g}", __name__, function.__name__, CASE._replace(layer=layer, sparsity=sparsity))


def test_what_is_found_side_by_side_every_process_knows_and_a_failure_takes_no_other_down() -> None:
    jobs = [job("csr"), job("tiled"), job("tiled", 0.9), job("masked")]
    shown: list[str] = []
    with closing(fork_server_for(jobs)) as fork_server:
        means = Means(fork_server, progress=shown.append)
        known, spent = found_out(jobs, means, time.monotonic() + 60.0)
        assert shown[-1] == "what all processes need to know: 3 of 3"
    assert sorted(known) == ["found csr 0.5", "found tiled 0.5", "found tiled 0.9"]
    assert [threads for _, threads in known.values()] == [1, 1, 1]
    # What has something in common is found by one process, whatever the number of cores.
    assert known["found tiled 0.5"][0] == known["found tiled 0.9"][0] != os.getpid()
    assert spent.building == sum(spent) > 0.4


def test_what_is_prepared_for_a_run_all_its_processes_know() -> None:
    jobs = [job("csr")._replace(case=CASE._replace(shape="8x8b1"))]  # of one sample there are no variants to race
    with closing(fork_server_for(jobs)) as fork_server:
        results = measure_against_best(jobs, Effort(2, 1e9, 60.0), print, Means(fork_server))
    outcome = results.outcomes["csr 0.5"]
    assert len(outcome.races) == 2
    assert list(outcome.facts["found"]) == ["found csr 0.5"]
    assert results.spent.building > 0.2  # in which it was found


def test_it_ends_in_time_and_leaves_no_process() -> None:
    jobs = [job("csr"), job("csr_linear")]
    with closing(fork_server_for(jobs)) as fork_server:
        start = time.monotonic()
        known, _ = found_out(jobs, Means(fork_server), start + 0.1)
        assert time.monotonic() - start < 30
    [pid, _] = known["found csr 0.5"]
    deadline = time.monotonic() + 5
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:  # noqa: PTH110  # it is Linux's own
        time.sleep(0.01)
    assert not os.path.exists(f"/proc/{pid}")  # noqa: PTH110


def test_seeds_sparsities_and_batches_are_found_together_and_arms_apart() -> None:
    def of(module: str, **fields: Any) -> Job:
        return Job("", module, "", CASE._replace(**fields))

    jobs = [
        *(
            of(bench_train.__name__, op="train", data="digits", update=update, seed=seed)
            for update in ("set", "rigl")
            for seed in (0, 1)
        ),
        *(of(bench_pruned.__name__, op="pruned", shape=f"8x8b{batch}", sparsity=at) for batch in (1, 64) for at in (0.8, 0.9)),
        of(bench_train.__name__, op="train", device="cuda"),
        of("bench.bench_layer"),  # which needs nothing of the kind
    ]
    found = [[(case.op, case.update, case.shape, case.sparsity) for _, _, case in unit] for unit in units_of(jobs)]
    assert found == [
        [("train", "set", "8x8b4", 0.5)],
        [("train", "rigl", "8x8b4", 0.5)],
        [("pruned", "static", shape, at) for shape in ("8x8b1", "8x8b64") for at in (0.8, 0.9)],
    ]


def test_what_is_raced_compiled_is_compiled_before_and_narrow_steps_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "can_compile", lambda _: True)
    step = CASE._replace(op="training_step", shape="6x8x4b16")
    narrow = step._replace(model="narrow", layer="dense", sparsity=0.9)
    trained = narrow._replace(op="train", shape="7x8x4b16", data="digits")  # which has a way of its own
    cases = [step, narrow, narrow._replace(op="step"), trained]
    found = [job.case for job in compiled_jobs([Job("", "", "", case) for case in cases])]
    expected = [dense_case(step), dense_case(trained), dense_case(narrowed(narrow))]
    assert found == [case._replace(protocol=COMPILED) for case in expected]
    assert compiled_jobs([Job("", "", "", narrow._replace(op="step"))]) == []


class Race:
    """Runs both works once, as of an epoch."""

    once = False

    def __call__(self, candidate: Works, reference: Works, device: str, plan: Plan | None = None) -> None:
        for works in (candidate, reference):
            listed(works)[0]()


def test_a_training_asks_for_nothing_that_was_not_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    search = Mock(return_value=Search(1e-3, 1, 0.0))
    monkeypatch.setattr(once_per_run, "KNOWN", {})
    monkeypatch.setattr(experiment, "search_learning_rate", search)
    training = CASE._replace(op="train", shape="64x8x10b128", data="digits", seed=3, asked_epochs=1, threads=1)
    sparse = training._replace(protocol="tuned", distribution=grids.DISTRIBUTION)
    dense = sparse._replace(model="dense", layer="dense", sparsity=0.0)
    for case in (sparse, dense):
        bench_train.prepare(case)
    assert search.call_count == 2
    bench_train.bench_train(sparse, Race())
    assert search.call_count == 2


def test_a_pruned_network_is_as_it_was_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    pruning = Mock(wraps=prune)
    monkeypatch.setattr(once_per_run, "KNOWN", {})
    monkeypatch.setattr(grids, "SEEDS", 1)
    monkeypatch.setattr(grids, "PRUNED_EPOCHS", 1)
    monkeypatch.setattr(bench_pruned, "prune", pruning)
    case = CASE._replace(op="pruned", layer="tiled", shape="64x256x256x10b2", data="digits-mlp", threads=1)
    bench_pruned.prepare(case)
    bench_pruned.bench_pruned(case, Race())
    assert pruning.call_count == 1
