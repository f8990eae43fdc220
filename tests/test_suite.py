"""The suite as a user runs it, with the engine that measures."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import grids
from bench.grids import OF_A_LAYER, OF_A_NETWORK, OPS, PARTS, TRAINED, WHOLE, ZEROS
from bench.machine.facts import has_bfloat16
from bench.runs.row import SCHEMA
from sparse_models.data import DATA
from sparse_models.layers import LAYERS, SparseLinear
from sparse_models.masks import UNSTRUCTURED
from sparse_models.updates import UPDATES
from tests.helpers import in_process
from tests.helpers.in_process import ROOT, SMALL, run
from tests.helpers.processes.commands import begun
from tests.strategies import DEFAULT_LAYERS, RULES_OF

NO_ROWS = "--benchmark-disable"


def cases_of(layers: dict[str, type[SparseLinear]]) -> int:
    """How many cases these layers have in all operations but trained ones, with narrow and unpruned ones of each whole one."""
    zeros = sum(len(ZEROS) - 1 for layer in layers.values() if layer.skips_zeros)
    updates = sum(UPDATES[rule].is_default for layer in layers for rule in RULES_OF[layer])
    return len(OF_A_LAYER) * len(layers) + 2 * len(WHOLE) + updates + zeros


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any], Path]:
    """One small run of every operation of a layer: its output, its JSON, and the storage it was saved in."""
    folder = tmp_path_factory.mktemp("runs")
    ops = ",".join(op for op in OPS if op not in (*TRAINED, *OF_A_NETWORK))
    done = run(*SMALL, "--op", ops, f"--benchmark-json={folder / 'run.json'}",
               f"--benchmark-storage={folder}", "--benchmark-save=first")  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads((folder / "run.json").read_text()), folder


@pytest.mark.alone
def test_every_row_has_the_fields_that_are_promised(saved: tuple[str, dict[str, Any], Path]) -> None:
    promised = (
        "schema op layer update shape batch in_features out_features sparsity nnz effective_sparsity parameters bytes_stored "
        "flops_counted flops_executed device dtype threads seconds dense_seconds speedup speedup_low speedup_high pairs "
        "regime processes process_numbers process_speedups process_seconds verdict interval_over realised_fraction pools "
        "pair_waited pair_dense_waited undisturbed_pairs"
    )
    rows = [record["extra_info"] for record in saved[1]["benchmarks"]]
    assert len(rows) == cases_of(DEFAULT_LAYERS)
    for row in rows:
        assert set(promised.split()) <= set(row)
        assert row["speedup_low"] <= row["speedup"] <= row["speedup_high"]
        assert row["pairs"] == len(row["pair_seconds"]) == len(row["pair_dense_seconds"]) == sum(row["process_pairs"])
        assert (
            1 <= row["processes"] == len(row["process_speedups"]) <= 2
        )  # a process that was disturbed throughout says nothing
        assert row["interval_over"] == "processes"
        assert row["verdict"] == "undecided"  # two processes decide nothing
        if row["op"] == "step" and row["model"] in ("sparse", "dense"):
            assert row["peak_bytes"] > 0
            assert row["dense_peak_bytes"] > 0
            for arm in ("", "dense_"):  # the parts were measured too: the step says how it splits, and what is in no part
                fractions = [row[f"{arm}{part}_fraction"] for part in (*PARTS, "unaccounted")]
                assert sum(fractions) == pytest.approx(1, abs=0.5)  # each is a median by itself
                assert isinstance(row[f"{arm}adds_up"], bool)
        if row["op"] in ("forward", "input_gradient", "weight_gradient") and row["layer"] == "tiled":
            fraction = row["gflops"] / row["bound_gflops"] if "bound_gflops" in row else 0.0  # none where all was disturbed
            assert row.get("bound_fraction", 0.0) == pytest.approx(min(1.0, fraction)) or "bound_fraction" not in row
        assert row["pools"]
        is_exact = row["model"] != "sparse" or LAYERS[row["layer"]].pattern is UNSTRUCTURED  # others keep whole units
        asked = row["sparsity"] if row["model"] == "sparse" else 0.0
        assert row["effective_sparsity"] == (asked if is_exact else pytest.approx(asked, abs=0.5))  # one block may be all


def test_pytest_benchmarks_own_figures_are_seconds_per_call(saved: tuple[str, dict[str, Any], Path]) -> None:
    for record in saved[1]["benchmarks"]:
        assert record["stats"]["rounds"] == record["extra_info"]["pairs"]
        assert record["stats"]["min"] == pytest.approx(min(record["extra_info"]["pair_seconds"]))


def test_json_is_plain_and_names_no_host(saved: tuple[str, dict[str, Any], Path]) -> None:
    text = json.dumps(saved[1])
    assert "UNSERIALIZABLE" not in text
    assert "node" not in saved[1]["machine_info"]
    assert saved[1]["machine_info"]["torch"]["version"]
    assert saved[1]["machine"]["bounds"]["cpu"]["dense_gflops"] > 0
    run = saved[1]["machine"]["run"]
    assert set(run["spent_seconds"]) == {"timed", "warming", "building", "starting", "bookkeeping"}
    assert sum(turn["timed"] for turn in run["turns"]) == pytest.approx(run["spent_seconds"]["timed"], rel=1e-4)
    assert 0 < sum(kind["timed"] for kind in run["kinds"]) <= run["spent_seconds"]["timed"]  # the search's are in the turns


def test_the_answer_stands_after_pytest_benchmarks_table(saved: tuple[str, dict[str, Any], Path]) -> None:
    own = saved[0].index("do sparse networks save compute?")
    assert saved[0].index("benchmark 'forward 8x8b4'") < own
    assert "Speed-up over dense by sparsity, 8x8 batch 4" in saved[0][own:]
    assert "Cost of one mask update in dense training steps" in saved[0][own:]
    assert "Where a step's time goes, 8x8 batch 4" in saved[0][own:]
    assert "Memory, 8x8 batch 4" in saved[0][own:]
    assert "Realised fraction" in saved[0][own:]
    assert "Roofline" in saved[0][own:]
    assert "In turns with PyTorch's own products" in saved[0][own:]
    assert "in timed rounds" in saved[0]


def test_disable_runs_every_body_once_and_shows_no_table() -> None:
    """Those of the full grid are run so by continuous integration."""
    done = run(*SMALL, NO_ROWS, "--op", ",".join(op for op in OPS if op not in (*TRAINED, *OF_A_NETWORK)))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "do sparse networks save compute?" not in done.stdout
    assert f"{cases_of(DEFAULT_LAYERS)} passed" in done.stdout


def test_a_training_row_has_its_fields_and_its_table(tmp_path: Path) -> None:
    options = ["--threads", "1", "--op", "train", "--data", "digits", "--seeds", "1", "--update", "rigl"]
    for _ in range(3):
        done = run(*options, f"--benchmark-json={tmp_path / 'run.json'}")
        assert done.returncode == 0, done.stdout + done.stderr
        if "left out, all of whose pairs were" not in done.stdout:  # disturbed by whoever else is at work on the machine
            break
    rows = {
        (row["protocol"], row["model"]): row
        for row in (record["extra_info"] for record in json.loads((tmp_path / "run.json").read_text())["benchmarks"])
    }
    assert len(rows) == (8 if has_bfloat16() else 6)
    for (protocol, model), row in rows.items():
        for field in ("final_loss", "test_accuracy", "dense_final_loss", "dense_test_accuracy", "training_seconds", "seed"):
            assert field in row
        assert row["training_seconds"] == pytest.approx(sum(row["epoch_seconds"]))
        assert {*row["epoch_seconds"]} <= {*row["pair_seconds"]}  # in place of what was disturbed another of them
        assert row["epochs"] == row["pairs"]
        assert row["effective_sparsity"] == pytest.approx(0.8 if model == "sparse" else 0.0, abs=1e-4)
        assert row["interval_over"] == "pairs"
        assert (row["learning_rate"] == 1e-3 and row["search_trainings"] == 0) or protocol == "tuned"
    for protocol in ("seed", "tuned"):
        dense = rows[protocol, "dense"]
        # The candidate and its reference are the same training here, to the last bit.
        assert dense["final_loss"] == dense["dense_final_loss"]
        assert {rows[protocol, model]["dense_test_accuracy"] for model in ("dense", "sparse", "narrow")} == {
            dense["test_accuracy"]
        }
    assert rows["tuned", "sparse"]["search_trainings"] >= 6
    assert all(row["learning_rate"] in grids.RATES_IN_REACH[1:-1] for row in rows.values())  # on no edge
    assert rows["seed", "narrow"]["shape"] == "64x98x98x10"
    assert "Trained on digits, 64x256x256x10, protocol tuned" in done.stdout
    assert "digits, tuned: at sparsity 0.8 sparse training" in done.stdout


def test_bad_input_gets_one_sentence_and_no_traceback() -> None:
    done = run("--sparsity", "1.2")
    assert done.returncode == 4
    assert done.stderr.strip() == (
        "ERROR: --sparsity: expected a sparsity (fraction of zeros) between 0 and 1, got 1.2; 80 % sparse is 0.8"
    )
    assert "Traceback" not in done.stdout


def test_cuda_asked_and_absent_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = run("--device", "cuda")
    assert done.returncode == 4
    assert "ERROR: --device: expected a CUDA device, got none" in done.stderr


def test_a_case_that_cannot_run_is_skipped_with_the_reason() -> None:
    done = run(*SMALL, NO_ROWS, "--op", "forward", "--dtype", "bfloat16", "-rs")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "csr runs on float32, float64, not on bfloat16" in done.stdout
    able = sum("bfloat16" in layer.dtypes for layer in DEFAULT_LAYERS.values())
    assert f"{able + 1} passed, {len(DEFAULT_LAYERS) - able} skipped" in done.stdout  # the narrow dense model too


def test_a_data_set_that_is_not_installed_takes_no_other_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATA.absent, "mnist5k", "pip install it")
    train = [NO_ROWS, "--threads", "1", "--op", "train", "--seeds", "1", "--update", "static", "--protocol", "seed"]
    done = run(*train, "--data", "mnist5k")
    assert done.returncode == 4
    told = "expected a case that can run here, got none of 2: train mnist5k: pip install it"
    assert done.stderr.strip() == f"ERROR: {told}"
    done = run(*train, "--data", "mnist5k,digits")
    assert done.returncode == 0, done.stdout + done.stderr
    arms = 3 + has_bfloat16()
    assert f"{arms} passed, {arms} skipped" in done.stdout
    assert "skipped: train mnist5k: pip install it" in done.stdout


def test_k_selects_cases_by_name() -> None:
    done = run(*SMALL, NO_ROWS, "--grid", "full", "-k", "backward and csr_linear")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
    done = run(*SMALL, NO_ROWS, "-k", "backward and csr_linear")
    assert "nothing of the default grid is called so; --grid full has every operation, layer and sparsity" in done.stdout
    by_name = in_process.run(*SMALL, NO_ROWS, "--layer", "csr", path="bench/bench_layer.py::bench_backward")
    assert "2 passed" in by_name.stdout


@pytest.mark.alone
def test_ctrl_c_keeps_what_was_measured(tmp_path: Path) -> None:
    # Run in the background, SIGINT may be ignored, which a child inherits: it listens again.
    listen = "import signal, sys, pytest; signal.signal(2, signal.default_int_handler); sys.exit(pytest.main())"
    options = ["-p", "no:cacheprovider", *SMALL, "--processes", "50", "--precision", "0.001", "--budget", "50"]
    options += ["--op", "forward,step", "--layer", "tiled"]
    options += [f"--benchmark-json={tmp_path / 'run.json'}", f"--benchmark-storage={tmp_path}"]
    command = [sys.executable, "-u", "-c", listen, "bench", *options]
    with begun(command, cwd=ROOT, start_new_session=True) as process:
        assert process.stdout is not None
        while not any('"process":2,"name":"bench/' in path.read_text() for path in tmp_path.glob("*/.run-*.jsonl")):
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of the group
        output = process.stdout.read()
    # Code 2 as a rule; 3 where the signal falls into pytest's own bookkeeping. What was measured is kept all the same.
    assert process.returncode in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR), output[-3000:]
    rows = [record["extra_info"] for record in json.loads((tmp_path / "run.json").read_text())["benchmarks"]]
    assert len(rows) == 2 * 2  # with dense
    assert all(row["schema"] == SCHEMA and 2 <= row["processes"] < 50 for row in rows)


@pytest.mark.alone
@pytest.mark.usefixtures("saved")  # so that a fork server stands ready, which takes longer than this budget
def test_too_little_time_is_said_and_pytest_benchmarks_options_hold_in_the_processes_that_measure(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    done = run(*SMALL, "--op", "forward", "--layer", "csr", "--budget", "3", "--processes", "999", "--precision", "0.001",
               "--benchmark-timer=time.process_time", "--benchmark-disable-gc",
               "--benchmark-cprofile=cumtime", f"--benchmark-json={path}")  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "stopped at the budget of 3 s (--budget)" in done.stdout
    records = json.loads(path.read_text())["benchmarks"]
    assert {record["options"]["timer"] for record in records} == {"process_time"}
    assert all(record["options"]["disable_gc"] is True for record in records)
    never = run(*SMALL, "--op", "forward", "--budget", "0.001")
    assert f"{len(DEFAULT_LAYERS) + 2} of {len(DEFAULT_LAYERS) + 2} cases had no turn in 0.001 s (--budget)" in never.stdout
    [csr] = [record for record in records if record["extra_info"]["layer"] == "csr"]
    assert any("csr.py" in entry["function_name"] for entry in csr["cprofile"])
