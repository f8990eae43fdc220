"""Variants of our own kernels are measured before anything is timed, and all processes of a run are given the same."""

import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import bench_layer
from bench.cases import Case
from bench.engine.jobs import Effort, Job
from bench.engine.pairing import Racer
from bench.engine.preparing import Tuned, found_out, tuned
from bench.engine.processes import Means, fork_server_for, measure_all
from bench.engine.reference_search import compiled_jobs, in_batches, search_effort
from bench.works import gates, once_per_run, reference
from bench.works.compiled import COMPILED
from bench.works.gates import pass_gate
from bench.works.problems import LAYOUTS
from bench.works.tuning import as_gated, as_tuned, gate_once, has_variants
from sparse_models.kernels import kept_choices
from sparse_models.kernels.choice import variant_for
from sparse_models.kernels.variant import Choice, Variant
from sparse_models.layers import LAYERS
from tests.engine.test_processes import fine
from tests.helpers.in_process import run

CASE = Case("step", "sparse", "tiled", "static", "64x32b16", 0.5, "cpu", "float32", 1)
DEFAULT, OTHER = Variant(8, 4, 16, 1), Variant(2, 8, 16, 1)


def looked_up(case: Case, race: Racer) -> dict[str, Any]:
    """Say which variant is used for a class that is held, and for one that is not: none is measured."""

    def call(_: Variant) -> None:
        raise AssertionError

    names = ("product", "unknown")
    used = [variant_for((name, (64, 32), 16, 1024, torch.float32), lambda: [DEFAULT, OTHER], call) for name in names]
    return fine(case, race) | {"used": used}


def test_what_is_measured_is_kept_and_given_to_every_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SPARSE_MODELS_VARIANT")
    monkeypatch.setenv("SPARSE_MODELS_CACHE", str(tmp_path))
    jobs = [Job("looked_up", __name__, "looked_up", CASE)]
    with closing(fork_server_for(jobs)) as fork_server:
        first = tuned(jobs, fork_server)
        assert first is not None
        told = {name.partition(",")[0] for name in first.choices}
        if first.measured:  # else something else kept the machine busy
            assert told <= {"product 64x32b16", "product 32x64b16", "sampled 64x32b16"}
            again = tuned(jobs, fork_server)
            assert again is not None
            assert not set(again.measured) & set(first.choices)
        held = {"product 64x32b16, 1/2 kept, float32, 1 thread": Choice(OTHER, {DEFAULT: 1.0, OTHER: 0.5}, 0.1).plain()}
        results = measure_all(jobs, Effort(2, 1e9, 60.0), Means(fork_server, choices=held))
    outcome = results.outcomes["looked_up"]
    assert outcome.failure is None
    assert outcome.facts["used"] == [list(OTHER), list(DEFAULT)]
    assert len(outcome.processes) == 2


def test_what_is_fixed_is_not_measured_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSE_MODELS_VARIANT", "vectors=4")
    jobs = [Job("looked_up", __name__, "looked_up", CASE)]
    with closing(fork_server_for(jobs)) as fork_server:
        found = tuned(jobs, fork_server)
        assert found == Tuned(asked="vectors=4")
        assert found.facts == {"asked": "vectors=4", "chosen": {}, "measured_seconds": 0}
        assert str(found) == "kernels: the variant is fixed (SPARSE_MODELS_VARIANT=vectors=4)"
        assert tuned([job._replace(case=job.case._replace(layer="csr")) for job in jobs], fork_server) is None


def test_a_run_says_which_variants_it_used() -> None:
    choices = {name: Choice(OTHER, {DEFAULT: 1.0, OTHER: 0.5}, 0.25).plain() for name in ("one", "other")}
    found = Tuned(choices, ["one"])
    assert str(found) == "kernels: a variant for each of 2 classes of shapes: 1 measured now in 0.2 s, 1 known from before"
    assert found.facts["chosen"] == dict.fromkeys(("one", "other"), str(OTHER))


def test_cases_that_need_the_same_variants_are_one() -> None:
    trainings = [CASE._replace(op="train", data="digits", protocol="tuned", seed=seed, update="rigl") for seed in range(3)]
    assert {as_tuned(case) for case in trainings} == {as_tuned(CASE._replace(op="training_step"))}
    others = (CASE, CASE._replace(layer="csr"), CASE._replace(device="cuda"), CASE._replace(layer="masked", device="cuda"))
    assert [has_variants(case) for case in others] == [True, False, True, False]
    for device, count in (("cpu", 3), ("cuda", 1)):
        parts = [CASE._replace(device=device, op=op) for op in ("step", "weight_gradient", "input_gradient")]
        assert len({as_tuned(case) for case in parts}) == count


def test_where_nothing_is_timed_nothing_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SPARSE_MODELS_VARIANT")
    monkeypatch.setattr(kept_choices, "cache_folder", lambda: tmp_path)
    small = ["--op", "forward", "--layer", "tiled", "--shape", "8x8b4", "--sparsity", "0.5", "--threads", "1"]
    assert run(*small, "--benchmark-disable", "-q", "-p", "no:unraisableexception").returncode == 0
    assert not [*tmp_path.iterdir()]


def test_a_gpus_cases_that_pass_the_same_gates_are_gated_as_one_and_a_cpus_not_at_all() -> None:
    on_gpu = CASE._replace(device="cuda", layer="csr")
    [dense, own] = as_gated(on_gpu)
    assert (dense.layer, dense.model, dense.sparsity, own.layer, own.sparsity) == ("dense", "dense", 0.0, "csr", 0.5)
    alike: list[dict[str, Any]] = [
        {"op": "backward"},
        {"op": "update", "update": "rigl"},
        {"regime": "graph"},
        {"dtype": "tf32"},
    ]
    assert all(as_gated(on_gpu._replace(**fields)) == [dense, own] for fields in alike)
    others: list[dict[str, Any]] = [{"op": "forward"}, {"op": "training_step"}, {"sparsity": 0.8}, {"dtype": "bfloat16"}]
    for fields in others:
        assert own not in as_gated(on_gpu._replace(**fields))
    assert as_gated(on_gpu._replace(model="narrow", layer="dense")) == [dense]
    assert as_gated(CASE) == bench_layer.to_prepare(CASE) == []


@pytest.mark.parametrize("op", ["forward", "step", "training_step"])
@pytest.mark.parametrize("layer", ["masked", "csr"])
def test_what_is_gated_before_is_not_gated_again(layer: str, op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its code is compiled then as well: what is timed was called."""
    known: dict[str, Any] = {}
    monkeypatch.setattr(once_per_run, "KNOWN", known)
    case = CASE._replace(layer=layer, op=op, shape="8x6x4b5" if op == "training_step" else "8x6b5")
    gate_once(case)
    before = dict(known)
    for name in ("gate", "gate_chain"):
        monkeypatch.setattr(gates, name, None)
    for layout in LAYOUTS if layer == "masked" and op != "training_step" else [None]:
        asked = layout or ("batch-major" if op == "training_step" else "feature-major")
        pass_gate(case, layer, asked)
    assert known == before != {}


@pytest.mark.card
def test_on_a_gpu_plans_are_raced_before_anything_is_timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SPARSE_MODELS_VARIANT")
    monkeypatch.setenv("SPARSE_MODELS_CACHE", str(tmp_path))
    cases = [CASE._replace(device="cuda", op=op, shape="256x128b64") for op in ("step", "optimizer")]
    jobs = [Job("", bench_layer.__name__, "", case) for case in [*cases, cases[0]._replace(op="forward", shape="256x128b4")]]
    with closing(fork_server_for(jobs)) as fork_server:
        found = tuned(jobs, fork_server)
        again = tuned(jobs, fork_server)
    assert found is not None
    kernels = {name.partition(" 1")[0].partition(" 2")[0].partition(" (")[0] for name in found.choices}
    assert kernels == {"sparse product", "transposed sparse product", "sparse gradient", "few samples"}
    assert set(found.measured) == set(found.choices)
    assert again == found._replace(measured=[])


@pytest.mark.card
def test_on_a_gpu_gates_are_passed_by_processes_that_each_use_it() -> None:
    layers = [name for name in ("csr", "masked", "tiled", "block16") if "cuda" in LAYERS[name].devices]
    cases = [CASE._replace(device="cuda", layer=layer, op=op) for layer in layers for op in ("forward", "step")]
    jobs, told = [Job("", bench_layer.__name__, "", case) for case in cases], list[str]()
    with closing(fork_server_for(jobs)) as fork_server:
        known, _ = found_out(jobs, Means(fork_server), time.monotonic() + 100, told.append)
    assert not told
    gated = {key: failure for key, failure in known.items() if "_gate_failure" in key}
    assert set(gated.values()) == {None}
    assert all(any(repr(layer) in key for key in gated) for layer in ("dense", *layers))


def test_on_a_gpu_all_that_processes_need_is_found_at_once_and_what_takes_longest_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reference, "can_compile", lambda _: True)
    step = CASE._replace(op="training_step", shape="6x8x4b16")
    trained = step._replace(op="train", shape="7x8x4b16", data="digits")
    on_cpu = [Job("", "", "", case) for case in (CASE, step, trained)]
    on_gpu = [one._replace(case=one.case._replace(device="cuda")) for one in on_cpu]
    [(found, compiled)] = in_batches(on_gpu)
    assert compiled
    assert [job.case.protocol for job in found] == [COMPILED, COMPILED, "-", "-", "-"]
    assert [job.case.op for job in found[2:]] == ["train", "step", "training_step"]
    assert in_batches(on_cpu) == [(on_cpu, False), (compiled_jobs(on_cpu), True)]
    effort = Effort(12, 0.05, 60.0)
    assert [search_effort(jobs, effort).processes for jobs in (on_cpu, on_gpu, [*on_cpu, *on_gpu])] == [5, 3, 5]
