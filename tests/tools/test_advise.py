import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench import __main__ as tool
from bench.models import loading
from bench.models.selected import NONE
from bench.plans import in_place, measuring, rivals, timing
from bench.plans.arms import CALLED, DENSE, PLAIN, Arm
from bench.plans.in_place import serve
from bench.plans.timing import Passes
from bench.runs.outcome import Race
from sparse_models.kernels import choice
from sparse_models.layers import LAYERS
from sparse_models.sparsification import sparse_layers

SOURCE = """
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)), torch.randn(4, 8)

def pruned():
    model, batch = net()
    nn.utils.prune.random_unstructured(model[2], "weight", amount=0.75)
    return model, batch

class Reading(nn.Sequential):
    def forward(self, x):
        return super().forward(x) + self[0].weight.sum()

def reads():
    return Reading(nn.Linear(8, 4)), torch.randn(4, 8)

def attention():
    return nn.MultiheadAttention(8, 2), (torch.randn(3, 8),) * 3
"""
ROUNDS = timing.rounds
# How many times as fast as dense each layer is: what is drawn in the place of what is measured.
SPEEDS = {"tiled": [4.0, 2.0, 0.5], "block16": [1.0, 4.0, 0.5], "csr": [0.5, 0.5, 0.5], "csr_linear": [0.4, 0.4, 0.4]}
SPEEDS |= {"bfloat16": [2.0, 8.0, 1.0]}


class OneProcess:
    """A fork server that asks this process."""

    def run(self, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
        _, function, arguments = asked["call"]
        assert function == serve.__name__
        yield from json.loads(json.dumps(list(serve(*arguments))))

    def close(self) -> None:
        pass


def drawn(built: Mapping[str, Arm], _: float) -> dict[str, Passes]:
    """Return passes at which every arm has the speed that it is to have."""
    found = {}
    for name, arm in built.items():
        arm()
        kinds = [one.split()[0] for one in name.split(", ")]
        kinds = kinds * 3 if len(kinds) == 1 else kinds
        speeds = [SPEEDS.get(kind, [1.0] * 3)[number] for number, kind in enumerate(kinds)]
        assert set(kinds) <= {PLAIN, CALLED, DENSE, *SPEEDS}
        own = [1e-3 / speed for speed in speeds] if name not in (PLAIN, CALLED) else []
        found[name] = Passes(1e-4 + (sum(own) or 3e-3), own)
    return found


def raced(own: Arm, dense: Arm, *_: object, **__: object) -> Race:
    own()
    dense()
    return Race([1e-3] * 4, [1.6e-3] * 4)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A model in the working directory, and figures that are drawn."""
    (tmp_path / "nets.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measuring, "fork_server_of", lambda _: OneProcess())
    monkeypatch.setattr(timing, "rounds", drawn)
    monkeypatch.setattr(timing, "raced", raced)
    monkeypatch.setattr(in_place, "SLOWEST", math.inf)
    monkeypatch.setattr(rivals, "has_bfloat16", lambda: True)
    monkeypatch.setattr(rivals, "can_compile", lambda _: False)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
    choice.forget()


ADVISE = ("advise", "--model", "nets.py:net")


def advised(*asked: str) -> int:
    return tool.main([*ADVISE, "--sparsity", "0.75", "--threads", "1", *asked])


@pytest.mark.parametrize("op", ["forward", "step"])
def test_the_call_that_is_told_makes_the_plan_that_is_written(op: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert advised("--op", op, "--out", "plan.json", "--out", "plan.md") == 0
    told, plan = capsys.readouterr().out, json.loads(Path("plan.json").read_text())
    assert "3 layers at sparsity 0.75, at most 52 s" in told
    assert max(map(len, told.splitlines())) <= 100
    chosen = {one["layer"]["names"][0]: one["choice"] and one["choice"]["kind"]["layer"] for one in plan["layers"]}
    assert chosen == {"0": "tiled", "2": "block16", "4": None}
    assert plan["predicted"]["median"] == pytest.approx(3.1 / 1.6)
    assert plan["measured"]["speedup"]["median"] == pytest.approx(1.6)
    assert "21% apart, more than 10%" in told
    assert plan["bytes"] < plan["dense_bytes"]
    assert [(one["name"], one["raced"]["verdict"]) for one in plan["rivals"]] == [("bfloat16", "faster")]
    assert "Dense in bfloat16, the whole is 1.60 [1.60 1.60] + times as fast as yours" in told
    assert "and as fast as the plan. It beats the choices for 2." in " ".join(told.split())
    assert "compiled is left out: expected torch.compile and a C++ compiler, got none" in " ".join(told.split())
    code = re.search(r"^```python\n(.*?)^```$", Path("plan.md").read_text(), re.MULTILINE | re.DOTALL)
    assert code is not None
    model = loading.load("nets.py:net").copied.module
    exec(code[1], {"model": model})  # noqa: S102  # what a user does with it
    made = {name: type(layer) for name, layer in sparse_layers(model).items()}
    assert made == {name: LAYERS[layer] for name, layer in chosen.items() if layer}
    assert all(line in told for line in code[1].splitlines())
    assert plan["calls"] + "\n" == code[1]


def test_masks_of_ones_own_are_what_is_planned_and_what_the_call_reads(capsys: pytest.CaptureFixture[str]) -> None:
    generator = torch.Generator().manual_seed(0)
    masks = {"0": torch.rand(16, 8, generator=generator) < 0.3, "2": torch.rand(16, 16, generator=generator) < 0.2}
    arrays: dict[str, Any] = {"0": masks["0"].numpy(), "2.weight": masks["2"].float().numpy()}
    np.savez("m.npz", **arrays)
    assert tool.main([*ADVISE, "--mask", "m.npz", "--threads", "1", "--layer", "tiled,block4", "--out", "plan.json"]) == 0
    told, plan = capsys.readouterr().out, json.loads(Path("plan.json").read_text())
    assert f"2 layers with masks in m.npz, at sparsity {plan['sparsity']:g}" in told
    assert "left dense, as m.npz has no mask of it: 4" in told
    assert plan["sparsity"] == pytest.approx(1 - sum(int(one.sum()) for one in masks.values()) / (16 * 8 + 16 * 16), abs=1e-4)
    assert f"block4 {plan['sparsity']:g} is left out: 0: Block4x4: expected a mask" in " ".join(
        told.split()
    )  # which its blocks do not hold
    assert {one["layer"]["names"][0]: one["choice"]["kind"]["layer"] for one in plan["layers"]} == {"0": "tiled", "2": "tiled"}
    model = loading.load("nets.py:net").copied.module
    exec(plan["calls"], {"model": model})  # noqa: S102  # as above
    assert all(line in told for line in plan["calls"].splitlines())
    found = sparse_layers(model)
    assert {name: torch.equal(layer.mask, masks[name]) for name, layer in found.items()} == {"0": True, "2": True}


def test_ctrl_c_leaves_what_is_known(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stopped(*_: object, **__: object) -> Race:
        raise KeyboardInterrupt

    monkeypatch.setattr(timing, "raced", stopped)
    assert advised("--out", "plan.json") == 130
    told = capsys.readouterr().out
    assert "2 of 3 layers exchanged" in told
    assert "the whole itself was not measured" in told
    assert "To make it so" in told
    assert "interrupted: this is what was known by then" in told
    assert json.loads(Path("plan.json").read_text())["measured"] is None


def test_a_budget_that_is_spent_ends_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert advised("--budget", "0.001", "--layer", "tiled") in (0, 1)
    assert "at most 0.001 s" in capsys.readouterr().out


def test_processes_that_others_disturbed_are_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(timing, "rounds", lambda *_: {})
    monkeypatch.setattr(measuring, "CHOOSING", 2)
    assert advised("--layer", "tiled") == 1
    told = capsys.readouterr().out
    assert "Nothing is known" in told
    assert "2 of 14 processes say nothing: others disturbed them" in told


def test_a_kind_that_the_model_cannot_hold_is_left_out_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(in_place, "_why_not", lambda _, kind, __: "too wide" if kind.layer == "csr" else None)
    assert advised("--layer", "csr,tiled") == 0
    assert "csr 0.75 is left out: too wide" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (["--out", "plan.txt"], "--out: expected a path that ends in .json or .md, in a folder that exists, got plan.txt"),
        (["--out", "nowhere/plan.md"], "--out: expected a path"),
        (["--layer", "compact"], "expected layers that can be pruned to 0.75 one by one"),
        (["--layer", "tile"], "tiled"),
        (["--layer", "two_four"], "expected layers that can be pruned to 0.75 one by one"),
        (["--sparsity", "2"], "expected a sparsity"),
        (["--threads", "0"], "expected"),
        (["--mask", "none.npz"], "expected a file at none.npz, got none"),
        (["--mask", "-"], "--mask: expected a file of masks, got -; leave it out"),
        (["--mask", "m.npz"], "--sparsity: expected none beside masks, whose own is 0.9375; leave it out"),
        (["--mask", "wrong.npz"], "wrong.npz, 0: expected a mask of shape [16, 8], as the weight has, got [8, 16]"),
        (["--model", "nets.py:nothing"], "nothing"),
        (["--model", "nets.py:attention"], "attention"),
        (
            ["--model", "nets.py:reads", "--layer", "tiled,csr"],
            "(tiled 0.75, csr 0.75: expected a network that calls its layers, got one that reads 'weight' of a layer",
        ),
    ],
)
def test_bad_input_is_one_sentence(asked: Sequence[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    files: dict[str, dict[str, Any]] = {"m.npz": {"0": np.eye(16, dtype=bool)[:, :8]}, "wrong.npz": {"0": np.ones((8, 16))}}
    for name, arrays in files.items():
        np.savez(name, **arrays)
    with pytest.raises(SystemExit, match="2"):
        advised(*asked)
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(("is_given", "kept"), [(True, 64), (False, 128)])
def test_break_evens_are_looked_for_without_the_masks_that_are_given(
    is_given: bool, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def noted(built: Mapping[str, Arm], _: float) -> dict[str, Passes]:
        seen.append(sparse_layers(built["tiled 0.5"].model)["2"].nnz)
        return drawn(built, _)

    monkeypatch.setattr(timing, "rounds", noted)
    list(serve("measure", [("nets.py:pruned", NONE), "forward", [[("tiled", 0.5)] * 3], [], 1, {}, 1.0, 0.001, is_given]))
    assert seen == [kept]


def test_what_is_drawn_here_is_timed_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every arm, for as short as can be, by the clock; what else the machine does decides nothing."""
    monkeypatch.setattr(timing, "rounds", ROUNDS)
    monkeypatch.setattr(timing, "DISTURBED", math.inf)
    monkeypatch.setattr(timing, "LEAST_COUNTED", 1)
    plans = [[("tiled", 0.75)] * 3, [("csr", 0.5), None, None]]
    *_, said = serve("measure", [("nets.py:net", NONE), "step", plans, ["bfloat16"], 1, {}, 60.0, 0.001, True])
    passes = {name: Passes(*one) for name, one in said["passes"].items()}
    assert set(passes) == {PLAIN, DENSE, "bfloat16", "tiled 0.75", "csr 0.5, dense, dense"}
    assert len(passes[PLAIN].layers) == 0
    for name in passes.keys() - {PLAIN}:
        assert len(passes[name].layers) == 3
        assert min(passes[name].layers) > 0
