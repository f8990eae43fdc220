"""A network of the user's as they have it measured: its layers, its whole, its masks, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.cases import cases
from bench.grids import OF_A_MODEL
from bench.selection import OwnModel
from tests.helpers.in_process import ROOT, Done, run
from tests.helpers.saved import is_asked_for
from tests.test_cases import DEFAULT

NET = """
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 4)), torch.randn(5, 8)

def whole():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 4)
        def forward(self, x):
            return self.layer(x).argmax(1)
    return Counting(), torch.randn(5, 8)

class Reading(nn.Sequential):
    def forward(self, x):
        return super().forward(x) + self[0].weight.sum()

def reads():
    return Reading(nn.Linear(8, 4)), torch.randn(5, 8)

def normed():
    return nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4)), torch.randn(1, 8)
"""
QUICK = ["--threads", "1", "--benchmark-disable", "-q", "--layer", "masked", "--sparsity", "0.5", "--tb=line"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / f"of_{tmp_path.name}.py").write_text(NET)
    return tmp_path


def measured(place: Path, function: str, *options: str) -> Done:
    return run("--model", f"of_{place.name}.py:{function}", *options, cwd=place)


def test_each_shape_of_its_layers_and_the_whole_is_measured_and_the_layers_are_named(place: Path) -> None:
    done = measured(place, "net", *QUICK)
    assert done.returncode == 0, done.stdout + done.stderr
    # Dense and masked: forward and step of three shapes, and both operations of the whole.
    assert f"{2 * (3 * 2 + 2)} passed" in done.stdout
    assert "  8x12b5: 0\n  12x12b5: 2, 3\n  12x4b5: 4\n" in done.stdout


def test_masks_bring_their_sparsities(place: Path) -> None:
    first, last = np.zeros((12, 12), dtype=bool), np.zeros((4, 12))
    first[:3], last[0] = True, 1
    arrays: dict[str, Any] = {"2": first, "4.weight": last}
    np.savez(place / "m.npz", **arrays)
    options = [option for option in QUICK if option not in ("--sparsity", "0.5")]
    done = measured(place, "net", *options, "--mask", "m.npz", "-v", "-v")
    assert done.returncode == 0, done.stdout + done.stderr
    sparse = {line.split("[")[1].split("]")[0] for line in done.stdout.splitlines() if "[masked" in line and "PASSED" in line}
    assert {name.partition("-cpu")[0] for name in sparse} == {
        "masked-12x12b5-0.75", "masked-12x4b5-0.75", f"masked-of_{place.name}.py:net-8x4b5-0.75"
    }  # fmt: skip
    assert sum("-m.npz" in name for name in sparse) == 1
    refused = measured(place, "net", *QUICK, "--mask", "m.npz")
    assert refused.stderr.strip() == "ERROR: --sparsity: expected none beside masks, whose own is 0.75; leave it out"
    np.savez(place / "m.npz", none=first)
    told = measured(place, "net", *options, "--mask", "m.npz").stderr
    assert told.startswith("ERROR: --mask: m.npz: expected a known layer that can be sparse (0, 2, 3, 4), got 'none'")


def test_a_network_that_reads_the_weight_of_a_layer_is_told_in_a_sentence(place: Path) -> None:
    done = measured(place, "reads", *QUICK, "--tb=short", "--op", "model", "--layer", "tiled")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "\ntiled: expected a network that calls its layers, got one that reads 'weight' of a layer, " in done.stdout
    assert "Traceback" not in done.stdout
    assert "During handling" not in done.stdout


def test_what_has_nothing_to_learn_from_has_no_step(place: Path) -> None:
    done = measured(place, "whole", *QUICK)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{2 * (2 + 1)} passed" in done.stdout
    asked = measured(place, "whole", *QUICK, "--op", "model_step")
    assert "ERROR: --op: expected a model whose output depends on parameters for model_step" in asked.stderr


def test_what_fails_in_the_users_code_as_it_is_measured_is_told(place: Path) -> None:
    done = measured(place, "normed", *QUICK, "--op", "model_step")
    assert done.returncode == 1
    assert "Expected more than 1 value per channel when training" in done.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--op", "model"], "--op: expected --model beside model, got none; name the function that returns your model"),
        (["--mask", "m.npz"], "--mask: expected --model beside m.npz, got none; name the function that returns your model"),
        (
            ["--model", "a", "--shape", "8x8b4"],
            "--shape: expected none beside --model, whose layers have their own; leave one out",
        ),
        (
            ["--model", "a", "--op", "train"],
            "--op: expected operations of layers or of a whole model beside --model, got train; ",
        ),
        (["--model", "a"], "--model: expected package.module:function or path/to/file.py:function, got 'a'; "),
    ],
)
def test_what_does_not_go_together_is_told_in_one_sentence(options: list[str], said: str) -> None:
    done = run(*options)
    assert done.returncode == 4
    assert done.stderr.startswith(f"ERROR: {said}")
    assert done.stderr.strip().count("\n") == 0


@pytest.mark.alone
def test_a_row_of_the_whole_has_its_fields_in_fresh_processes(place: Path) -> None:
    path = place / "run.json"
    options = ["--threads", "1", "--processes", "2", "--precision", "9", "--budget", "60", "--layer", "tiled,masked"]
    done = measured(place, "net", *options, "--op", "model,model_step", "--sparsity", "0.5", f"--benchmark-json={path}")
    assert done.returncode == 0, done.stdout + done.stderr
    saved = json.loads(path.read_text())
    assert saved["model_layers"] == {"8x12b5": ["0"], "12x12b5": ["2", "3"], "12x4b5": ["4"]}
    rows = [record["extra_info"] for record in saved["benchmarks"]]
    weights = 8 * 12 + 2 * 12 * 12 + 12 * 4
    assert [(row["op"], row["layer"]) for row in rows] == [
        (op, one) for op in OF_A_MODEL for one in ("dense", "tiled", "masked")
    ]
    for row in rows:
        assert (row["data"], row["shape"], row["batch"]) == (f"of_{place.name}.py:net", "8x4", 5)
        is_dense = row["layer"] == "dense"
        assert row["weights"] == weights
        assert row["nnz"] == weights // (1 if is_dense else 2)
        assert row["effective_sparsity"] == (0.0 if is_dense else 0.5)
        assert row["dense_bytes_stored"] == 4 * (weights + 12 + 12 + 12 + 4)
        assert row["parameters"] >= row["nnz"] + 40
        products = 1 if row["op"] == "model" else 3
        counted = 2 * 5 * (products * weights - (8 * 12 if products == 3 else 0))  # the first has no input gradient
        assert row["dense_flops_counted"] == row["dense_flops_executed"] == counted
        assert row["flops_counted"] == counted // (1 if is_dense else 2)
        assert row["dense_layout"] == "eager"  # tests do not compile
        assert ("peak_bytes" in row) == (row["op"] == "model_step")
        assert row["speedup_low"] <= row["speedup"] <= row["speedup_high"]
    assert "model 8x4b5, dense " in done.stdout
    assert f"of_{place.name}.py:net, 8x4b5, has these linear layers:" in done.stdout


def test_a_whole_of_an_older_run_is_missed_where_it_is_the_one_that_is_asked_for() -> None:
    own = OwnModel("nets.py:net", "8x4b5", can_learn=True)
    asked = DEFAULT._replace(ops=OF_A_MODEL, layers=("tiled",), sparsities=(0.5,), shapes=("8x12b5",), threads=(1,), model=own)
    [case] = [one for one in cases("model", asked) if one.layer == "tiled"]
    assert is_asked_for(asked, case)
    assert not is_asked_for(asked, case._replace(data="nets.py:another"))
    assert not is_asked_for(asked, case._replace(sparsity=0.9))


@pytest.mark.parametrize("name", ["own_mlp", "transformer", "convolution"])
def test_an_example_can_be_measured(name: str) -> None:
    done = run("--model", f"examples/{name}.py:model", *QUICK, "--op", "model", cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
