import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bench.models.loading import Example
from bench.models.selected import NONE
from bench.plans import in_place, rivals
from bench.plans.arms import Model
from bench.plans.rivals import BFLOAT16, RIVALS
from bench.works.compiled import COMPILED

SOURCE = """
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)), torch.randn(4, 8)

class Noisy(nn.Linear):
    def forward(self, x):
        y = super().forward(x)
        torch.rand(y.element_size())  # so that what is drawn next differs by the number type
        return y * torch.randn(y.shape).to(y.dtype) if self.training else y

def noisy():
    return nn.Sequential(nn.Linear(8, 16), Noisy(16, 4)), torch.randn(4, 8)

def short():
    model, batch = net()
    return model.bfloat16(), batch.bfloat16()

class Indexed(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(8, 4)

    def forward(self, x):
        return self.last(x.float())

class Ids(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.last = nn.Embedding(1001, 8), nn.Linear(8, 4)

    def forward(self, ids):
        return self.last(self.table(ids.long()))

def ids():
    return nn.Sequential(Ids()), torch.arange(500.0, 1000.0)

class Counting(Indexed):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x) + 0 * self.calls

def counting():
    return nn.Sequential(Counting()), torch.randn(4, 8)

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


@pytest.mark.parametrize("op", ["forward", "step"])
@pytest.mark.parametrize("is_whole", [True, False])
@pytest.mark.parametrize("name", RIVALS)
def test_a_rival_leaves_the_model_as_it_is(name: str, is_whole: bool, op: str) -> None:
    model = Model("nets.py:net")
    own, rival = model.example.module.train(op != "step"), RIVALS[name]
    before = {name: one.clone() for name, one in own.state_dict().items()}
    (rival.whole if is_whole else rival.in_place)(model, op)()
    assert own.training == (op != "step")
    assert all("forward" not in vars(one) for one in own.modules())
    assert {name: one.dtype for name, one in own.state_dict().items()} == dict.fromkeys(before, torch.float32)
    assert all(torch.equal(one, before[name]) for name, one in own.state_dict().items())
    assert all(one.grad is None for one in own.parameters())


@pytest.mark.parametrize("is_whole", [True, False])
def test_compiled_code_that_computes_something_else_is_no_rival(is_whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(function: Any) -> Callable[..., Any]:
        return (lambda x: -function(x)) if isinstance(function, nn.Module) == is_whole else function

    monkeypatch.setattr(rivals, "compiled", wrong)
    assert "its output is off that of the model as it is by" in (why_not(COMPILED) or "")


@pytest.mark.parametrize(("op", "is_off"), [("forward", False), ("step", True)])
def test_a_step_in_16_bits_whose_gradients_are_others_is_no_rival(
    op: str, is_off: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its output is right: a hook, which the copy in 16 bits alone has, turns a gradient."""
    placed_as_it_is = Example.placed

    def turned(own: Example, device: str, dtype: torch.dtype) -> Example:
        placed = placed_as_it_is(own, device, dtype)
        placed.module.get_parameter("2.weight").register_hook(torch.neg)
        return placed

    assert why_not(BFLOAT16, op=op) is None
    monkeypatch.setattr(Example, "placed", turned)
    told = why_not(BFLOAT16, op=op)
    assert ("the gradient of 2.weight is off that of the model as it is by" in (told or "")) == is_off
    assert is_off or told is None


def test_gradients_that_are_random_are_not_held_to_others() -> None:
    assert why_not(BFLOAT16, "nets.py:noisy", "step") is None


def test_code_that_is_compiled_at_every_call_is_no_rival() -> None:
    dynamo: Any = importlib.import_module("torch._dynamo")
    dynamo.reset()  # or, after eight models of one class, it would compile no more
    with dynamo.config.patch(disable=False):  # as what is set by name is gone afterwards
        assert "expected code that is compiled once, got a model that is compiled anew" in (
            why_not(COMPILED, "nets.py:counting") or ""
        )
        assert why_not(COMPILED) is None


@pytest.mark.parametrize("broken", ["_of_16_bits", "_layers_of_16_bits"])
def test_both_arms_are_called_before_they_are_timed(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> Callable[[], None]:
        raise ZeroDivisionError("there")

    monkeypatch.setattr(rivals, broken, fails)
    assert why_not(BFLOAT16) == "ZeroDivisionError: there"


@pytest.mark.parametrize(
    ("name", "target", "can", "told"),
    [
        (BFLOAT16, "nets.py:net", False, "got one without such instructions"),
        (BFLOAT16, "nets.py:short", True, "got one that is in bfloat16 as it comes"),
        (BFLOAT16, "nets.py:float_inside", True, "RuntimeError: "),  # what the model's code raises in 16 bits
        (BFLOAT16, "nets.py:ids", True, "its output is off that of the model as it is by"),  # whose batch is rounded, too
        (COMPILED, "nets.py:net", False, "expected torch.compile and a C++ compiler, got none"),
    ],
)
def test_why_there_is_none_is_a_sentence(name: str, target: str, can: bool, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rivals, "has_bfloat16", lambda: can)
    monkeypatch.setattr(rivals, "can_compile", lambda _: can)
    assert told in (why_not(name, target) or "")
