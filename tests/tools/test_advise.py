import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import __main__ as tool
from bench.models import loading
from bench.plans import in_place, measuring
from bench.plans.arms import CALLED, DENSE, PLAIN, Arm
from bench.plans.in_place import Passes, serve
from bench.runs.outcome import Race
from sparse_models.kernels import choice
from sparse_models.layers import LAYERS
from sparse_models.sparsification import sparse_layers

SOURCE = """
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)), torch.randn(4, 8)

def attention():
    return nn.MultiheadAttention(8, 2), (torch.randn(3, 8),) * 3
"""
ROUNDS = in_place._rounds
# How many times as fast as dense each layer is: what is drawn in the place of what is measured.
SPEEDS = {"tiled": [4.0, 2.0, 0.5], "block16": [1.0, 4.0, 0.5], "csr": [0.5, 0.5, 0.5], "csr_linear": [0.4, 0.4, 0.4]}


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
        speeds = SPEEDS.get(name.split()[0], [1.0] * 3)
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
    monkeypatch.setattr(in_place, "_rounds", drawn)
    monkeypatch.setattr(in_place, "race", raced)
    monkeypatch.setattr(in_place, "warm_up", lambda *_: None)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
    choice.forget()


def advised(*asked: str) -> int:
    return tool.main(["advise", "--model", "nets.py:net", "--sparsity", "0.75", "--threads", "1", *asked])


@pytest.mark.parametrize("op", ["forward", "step"])
def test_the_call_that_is_told_makes_the_plan_that_is_written(op: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert advised("--op", op, "--out", "plan.json", "--out", "plan.md") == 0
    told, plan = capsys.readouterr().out, json.loads(Path("plan.json").read_text())
    assert "3 linear layers at sparsity 0.75, at most 60 s" in told
    assert max(map(len, told.splitlines())) <= 100
    chosen = {one["layer"]["names"][0]: one["choice"] and one["choice"]["kind"]["layer"] for one in plan["layers"]}
    assert chosen == {"0": "tiled", "2": "block16", "4": None}
    assert plan["predicted"]["median"] == pytest.approx(3.1 / 1.6)
    assert plan["measured"]["speedup"]["median"] == pytest.approx(1.6)
    assert "21% apart, more than 10%" in told
    assert plan["bytes"] < plan["dense_bytes"]
    code = re.search(r"^```python\n(.*?)^```$", Path("plan.md").read_text(), re.MULTILINE | re.DOTALL)
    assert code is not None
    model = loading.load("nets.py:net").copied.module
    exec(code[1], {"model": model})  # noqa: S102  # what a user does with it
    made = {name: type(layer) for name, layer in sparse_layers(model).items()}
    assert made == {name: LAYERS[layer] for name, layer in chosen.items() if layer}
    assert all(line in told for line in code[1].splitlines())


def test_ctrl_c_leaves_what_is_known(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stopped(*_: object, **__: object) -> Race:
        raise KeyboardInterrupt

    monkeypatch.setattr(in_place, "race", stopped)
    assert advised("--out", "plan.json") == 130
    told = capsys.readouterr().out
    assert "2 of 3 layers exchanged" in told
    assert "not measured, as the time was over" in told
    assert "interrupted: this is what was known by then" in told
    assert json.loads(Path("plan.json").read_text())["measured"] is None


def test_a_budget_that_is_spent_ends_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert advised("--budget", "0.001", "--layer", "tiled") in (0, 1)
    assert "at most 0.001 s" in capsys.readouterr().out


def test_processes_that_others_disturbed_are_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(in_place, "_rounds", lambda *_: {})
    monkeypatch.setattr(measuring, "PROCESSES", 2)
    assert advised("--layer", "tiled") == 1
    told = capsys.readouterr().out
    assert "Nothing is known" in told
    assert "2 of 2 processes say nothing: others disturbed them" in told


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
        (["--model", "nets.py:nothing"], "nothing"),
        (["--model", "nets.py:attention"], "attention"),
    ],
)
def test_bad_input_is_one_sentence(asked: Sequence[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        advised(*asked)
    assert sentence in capsys.readouterr().err


def test_what_is_drawn_here_is_timed_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every arm, for as short as can be, by the clock; what else the machine does decides nothing."""
    monkeypatch.setattr(in_place, "_rounds", ROUNDS)
    monkeypatch.setattr(in_place, "DISTURBED", math.inf)
    monkeypatch.setattr(in_place, "LEAST_COUNTED", 1)
    *_, said = serve("measure", ["nets.py:net", "step", [("tiled", 0.75), ("csr", 0.5)], 1, 0.001, {}])
    passes = {name: Passes(*one) for name, one in said["passes"].items()}
    assert {PLAIN, DENSE, "tiled 0.75", "csr 0.5"} <= set(passes)
    assert len(passes[PLAIN].layers) == 0
    for name in passes.keys() - {PLAIN}:
        assert len(passes[name].layers) == 3
        assert min(passes[name].layers) > 0
