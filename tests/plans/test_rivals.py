from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import nn

from bench.models.selected import NONE
from bench.plans import in_place, rivals
from bench.plans.arms import Model
from bench.plans.rivals import BFLOAT16, RIVALS
from bench.works.compiled import COMPILED
from tests import strategies

SOURCE = """
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)), torch.randn(4, 8)

def short():
    model, batch = net()
    return model.bfloat16(), batch.bfloat16()

class Indexed(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(8, 4)

    def forward(self, x):
        return self.last(x.float())

def float_inside():
    return nn.Sequential(Indexed()), torch.randn(4, 8)
"""


def traced(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile as far as what a compiler makes code from: the rest takes seconds."""
    return torch.compile(function, backend="eager", dynamic=False)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Models in the working directory, on a machine that can do everything."""
    (tmp_path / "nets.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rivals, "has_bfloat16", lambda: True)
    monkeypatch.setattr(rivals, "can_compile", lambda _: True)
    monkeypatch.setattr(rivals, "compiled", traced)


def why_not(name: str, target: str = "nets.py:net", op: str = "forward") -> str | None:
    *_, said = in_place.serve("check_rival", [(target, NONE), op, name, torch.get_num_threads(), 60.0])
    why: str | None = said["why"]
    return why


@pytest.mark.parametrize("op", ["forward", "step"])
@pytest.mark.parametrize("name", RIVALS)
def test_a_rival_is_the_model_and_each_of_its_layers_is_timed(name: str, op: str) -> None:
    assert why_not(name, op=op) is None
    model = Model("nets.py:net")
    whole, in_place = RIVALS[name].whole(model, op), RIVALS[name].in_place(model, op)
    for arm in (whole, in_place):
        output = arm()
        assert (output is None) == (op == "step")
        if isinstance(output, torch.Tensor):
            expected = model.example.module(*model.example.batch)
            torch.testing.assert_close(output.float(), expected, rtol=0.05, atol=0.05)
    assert len(whole.lap()) == 0
    assert len(lap := in_place.lap()) == 2
    assert min(lap) > 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(strategies.seeds)
def test_a_rival_leaves_the_model_as_it_is(seed: int) -> None:
    torch.manual_seed(seed)
    model = Model("nets.py:net")
    before = {name: one.clone() for name, one in model.example.module.state_dict().items()}
    RIVALS[BFLOAT16].in_place(model, "step")()
    assert all(torch.equal(one, before[name]) for name, one in model.example.module.state_dict().items())


def test_compiled_code_that_computes_something_else_is_no_rival(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(module: Any) -> Callable[..., Any]:
        return (lambda x: -module(x)) if isinstance(module, nn.Module) else module

    monkeypatch.setattr(rivals, "compiled", wrong)
    assert "its output is off that of the dense model" in (why_not(COMPILED) or "")


@pytest.mark.parametrize(
    ("name", "target", "can", "told"),
    [
        (BFLOAT16, "nets.py:net", False, "got one without such instructions"),
        (BFLOAT16, "nets.py:short", True, "got one that is in bfloat16 as it comes"),
        (BFLOAT16, "nets.py:float_inside", True, "RuntimeError: "),  # what the model's code raises in 16 bits
        (COMPILED, "nets.py:net", False, "expected torch.compile and a C++ compiler, got none"),
    ],
)
def test_why_there_is_none_is_a_sentence(name: str, target: str, can: bool, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rivals, "has_bfloat16", lambda: can)
    monkeypatch.setattr(rivals, "can_compile", lambda _: can)
    assert told in (why_not(name, target) or "")
