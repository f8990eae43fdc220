"""What all processes of a run need to know is found before anything is timed, by a process for each core."""

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from bench import bench_pruned, bench_train, grids
from bench.cases import Case
from bench.engine import reference_search
from bench.engine.jobs import Effort, Job, Spent
from bench.engine.pairing import Plan, Racer
from bench.engine.preparing import found_out, preparations, together
from bench.engine.processes import Means, fork_server_for
from bench.engine.reference_search import compiled_jobs, measure_against_best, variant_race
from bench.engine.worker import body_of
from bench.models.pruned import Pruned, prune
from bench.works import once_per_run, reference
from bench.works.compiled import COMPILED
from bench.works.once_per_run import KNOWN, find_once
from bench.works.problems import narrowed
from bench.works.reference import dense_case, training_key
from bench.works.replays import Works, listed
from bench.works.trained import dense_training, experiment
from sparse_models.models import MLP
from sparse_models.search import Search
from tests.engine.test_processes import fine

CASE = Case("forward", "sparse", "csr", "static", "8x8b4", 0.5, "cpu", "float32", 2)


def to_prepare(case: Case) -> list[Case]:
    return [case._replace(seed=0)]


def prepare(case: Case) -> None:
    """Find something out that takes a while; fail, die, or linger as a compiler does that is started, and told in a file."""
    if case.layer == "masked":
        raise ZeroDivisionError
    if case.layer == "fan_in":
        os.kill(os.getpid(), signal.SIGKILL)
    if case.layer == "csr_linear":
        with (
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as compiler,
            Path(case.data).open("a") as file,
        ):
            print(compiler.pid, file=file, flush=True)
    find_once(f"found {case.layer} {case.sparsity:g}", os.getpid)
    time.sleep(0.2)


def told(case: Case, race: Racer) -> dict[str, Any]:
    return fine(case, race) | {"found": {name: found for name, found in KNOWN.items() if name.startswith("found")}}


def job(layer: str, sparsity: float = 0.5, seed: int = 0, data: str = CASE.data) -> Job:
    case = CASE._replace(layer=layer, sparsity=sparsity, seed=seed, data=data, threads=1)  # as others, by one fork server
    return Job(f"{layer} {sparsity:g}", __name__, told.__name__, case)


@pytest.mark.alone
def test_what_is_found_side_by_side_every_process_knows_and_a_failure_takes_no_other_down() -> None:
    jobs = [job("csr"), job("tiled"), job("tiled", 0.9), job("tiled", 0.9, seed=1), job("masked")]
    shown: list[str] = []
    said: list[str] = []
    with closing(fork_server_for(jobs)) as fork_server:
        means = Means(fork_server, progress=shown.append)
        known, spent = found_out(jobs, means, time.monotonic() + 60.0, said.append)
    assert "what all processes need to know: 4 of 4" in shown
    assert said == []
    assert sorted(known) == ["found csr 0.5", "found tiled 0.5", "found tiled 0.9"]
    assert os.getpid() not in known.values()
    assert spent.building == sum(spent) > 0.2


@pytest.mark.alone
def test_what_is_prepared_for_a_run_all_its_processes_know() -> None:
    one_sample = [job(layer) for layer in ("csr", "tiled")]  # of which there are no variants to race
    jobs = [one._replace(case=one.case._replace(shape="8x8b1")) for one in one_sample]
    with closing(fork_server_for(jobs)) as fork_server:
        results = measure_against_best(jobs, Effort(2, 1e9, 60.0), print, Means(fork_server))
    outcome = results.outcomes["csr 0.5"]
    assert len(outcome.races) == 2
    assert sorted(outcome.facts["found"]) == ["found csr 0.5", "found tiled 0.5"]
    assert results.spent.building > 0.2  # in which it was found


def test_a_single_thing_is_left_to_the_process_that_needs_it() -> None:
    means = Means(Mock(run=Mock(side_effect=AssertionError)))
    assert found_out([job("csr"), job("csr", seed=1)], means, math.inf, print) == ({}, Spent())


@pytest.mark.alone
def test_what_is_not_found_because_a_process_died_is_told_and_not_counted() -> None:
    jobs = [job("csr"), job("fan_in")]
    shown: list[str] = []
    said: list[str] = []
    with closing(fork_server_for(jobs)) as fork_server:
        found_out(jobs, Means(fork_server, progress=shown.append), math.inf, said.append)
    assert "what all processes need to know: 2 of 2" not in shown
    [line] = said
    assert line.startswith("what all processes need to know: a process died before ")


def test_each_arm_and_each_pruned_network_is_prepared_once_whatever_the_seed_and_the_batch() -> None:
    def of(module: str, **fields: Any) -> Job:
        return Job("", module, "", CASE._replace(**fields))

    tuned = {"op": "train", "data": "digits", "protocol": "tuned"}
    jobs = [
        *(of(bench_train.__name__, **tuned, sparsity=at, seed=seed) for at in (0.8, 0.9) for seed in (3, 4)),
        of(bench_train.__name__, op="train", data="digits", protocol="seed"),  # which has one rate for all
        *(of(bench_pruned.__name__, op="pruned", shape=f"8x8b{batch}", sparsity=at) for batch in (64, 1) for at in (0.8, 0.9)),
        of(bench_train.__name__, **tuned, device="cuda"),
        of("bench.bench_layer"),  # which on a CPU needs nothing of the kind
        *(of("bench.bench_layer", op=op, device="cuda") for op in ("step", "backward")),  # of which one gate is enough
    ]
    found = [(case.device, case.op, case.layer, case.shape, case.sparsity, case.seed) for _, _, case in preparations(jobs)]
    assert found == [
        ("cpu", "train", "dense", "8x8b4", 0.0, 0),
        *(("cpu", "train", "csr", "8x8b4", at, 0) for at in (0.8, 0.9)),
        *(("cpu", "pruned", "csr", "8x8b1", at, seed) for at in (0.8, 0.9) for seed in range(grids.SEEDS)),
        *(("cuda", "train", layer, "8x8b4", at, 0) for layer, at in (("dense", 0.0), ("csr", 0.5))),
        *(("cuda", "step", layer, "8x8b4", at, 0) for layer, at in (("dense", 0.0), ("csr", 0.5))),
    ]
    groups = [[(case.op, case.sparsity) for _, _, case in group] for group in together(preparations(jobs))]
    pruned = [[("pruned", at) for at in (0.8, 0.9)]] * grids.SEEDS  # each seed's dense network is trained by one process
    on_gpu = [[(op, at)] for op in ("train", "step") for at in (0.0, 0.5)]
    assert groups == [[("train", 0.0)], [("train", 0.8), ("train", 0.9)], *pruned, *on_gpu]


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


def test_what_is_compiled_before_is_what_is_raced_and_for_as_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, Case, int]] = []

    def works_of(variant: str, dense: Case) -> list[Any]:
        asked.append((variant, dense, torch.get_num_threads()))
        return [lambda: None]

    monkeypatch.setattr(reference, "can_compile", lambda _: True)
    monkeypatch.setattr(reference_search, "works_of", works_of)
    jobs = compiled_jobs([Job("", "", "", CASE._replace(op="training_step", shape="6x8x4b16", threads=3))])
    before = torch.get_num_threads()
    try:
        prepare_all(jobs)
        variant_race(jobs[0].case, Race())
    finally:
        torch.set_num_threads(before)
    assert asked[0] == asked[1] == (COMPILED, dense_case(jobs[0].case)._replace(op="training_step"), 3)


def prepare_all(jobs: list[Job]) -> None:
    for module, function, case in preparations(jobs):
        body_of(module, function)(case)


class Race:
    """Runs both works once, as of an epoch."""

    once = False

    def __call__(self, candidate: Works, reference: Works, device: str, plan: Plan | None = None) -> None:
        for works in (candidate, reference):
            listed(works)[0]()


@pytest.mark.parametrize("model", ["sparse", "narrow", "dense"])
def test_a_training_asks_for_nothing_that_was_not_prepared(monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    search = Mock(return_value=Search(1e-3, 1, 0.0))
    monkeypatch.setattr(once_per_run, "KNOWN", {})
    monkeypatch.setattr(experiment, "search_learning_rate", search)
    case = TRAINING._replace(model=model, seed=3)
    if model != "sparse":
        case = case._replace(layer="dense", sparsity=0.5 * (model == "narrow"))
    prepare_all([Job("", bench_train.__name__, "", case)])
    search.side_effect = AssertionError("this rate was not prepared")
    told = bench_train.bench_train(case, Race())
    assert (told["learning_rate"], told["dense_learning_rate"]) == (1e-3, 1e-3)


TRAINING = CASE._replace(
    op="train", shape="64x8x10b128", data="digits", asked_epochs=1, threads=1, protocol="tuned", distribution=grids.DISTRIBUTION
)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("fastest", [COMPILED, "batch-major"])
@pytest.mark.parametrize("model", ["dense", "narrow", "compiled"])
def test_a_rate_is_searched_for_in_the_same_way_wherever_it_is(
    monkeypatch: pytest.MonkeyPatch, model: str, fastest: str, threads: int
) -> None:
    def searching(build: Callable[[int], MLP], *_: object, **__: object) -> Search:
        assert type(build(0)) is MLP  # whose steps are eager
        return Search(1e-3, torch.get_num_threads(), 0.0)

    case = TRAINING._replace(model=model, layer="dense")
    monkeypatch.setattr(once_per_run, "KNOWN", {})
    monkeypatch.setattr(dense_training, "KNOWN", {training_key(dense_case(case)): (fastest, 1.1)})
    monkeypatch.setattr(experiment, "search_learning_rate", searching)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        assert experiment.search(case, experiment.settings_of(case)) == [1e-3, 1, 0.0]
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_a_pruned_network_is_as_it_was_prepared_by_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []

    def pruning(*asked: Any) -> Pruned:
        threads.append(torch.get_num_threads())
        return prune(*asked)

    monkeypatch.setattr(once_per_run, "KNOWN", {})
    monkeypatch.setattr(grids, "SEEDS", 1)
    monkeypatch.setattr(grids, "PRUNED_EPOCHS", 1)
    monkeypatch.setattr(bench_pruned, "prune", pruning)
    case = CASE._replace(op="pruned", layer="tiled", shape="64x256x256x10b2", data="digits-mlp", threads=2)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        prepare_all([Job("", bench_pruned.__name__, "", case)])
        assert threads == [1]
        bench_pruned.bench_pruned(case, Race())
    finally:
        torch.set_num_threads(before)
    assert threads == [1]
