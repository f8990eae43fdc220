"""How the dense arms of trainings take their steps: eagerly, compiled for whole batches, in bfloat16 under autocast."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.cases import Case
from bench.works.compiled import COMPILED
from bench.works.once_per_run import KNOWN
from bench.works.reference import dense_case, training_key
from bench.works.trained import dense_training
from bench.works.trained.dense_training import DenseTraining, pass_dense_gate, variant_of
from bench.works.trained.experiment import model_of
from sparse_models.data import Split
from sparse_models.errors import GateError
from sparse_models.models import convert, dense_mlp, draw
from tests.strategies import generator, normal

CASE = Case("train", "dense", "dense", "static", "6x8x4b16", 0.0, "cpu", "float32", 1, "digits", "seed", distribution="uniform")
SAMPLES = Split(normal(0, 40, 6, dtype=torch.float32), torch.arange(40) % 4)


class Compiler:
    """Stands in for torch.compile, and counts what goes through what it compiled."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, wrong: float = 1.0) -> None:
        self.batches: list[int] = []

        def compile_(function: Callable[..., Tensor], **_: object) -> Callable[..., Tensor]:
            def compiled(x: Tensor, labels: Tensor, **named: Any) -> Tensor:
                self.batches.append(len(labels))
                return wrong * function(x, labels, **named)

            return compiled

        monkeypatch.setattr("torch.compile", compile_)


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense_training, "KNOWN", {})
    _forget()


@pytest.mark.parametrize("model", ["dense", "narrow", "autocast"])
def test_dense_weights_are_trained_in_the_fastest_variant(monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    case = CASE._replace(model=model, sparsity=0.5, seed=7, asked_epochs=3)
    assert variant_of(case) == "eager"
    monkeypatch.setattr(dense_training, "KNOWN", {training_key(dense_case(CASE)): [COMPILED, 1.1]})  # as JSON returns it
    assert variant_of(case) == COMPILED


@pytest.mark.parametrize("model", ["eager", "compiled"])
@pytest.mark.parametrize("fastest", ["batch-major", COMPILED])
def test_a_variant_that_is_asked_for_is_an_arm_whichever_is_the_fastest(
    monkeypatch: pytest.MonkeyPatch, model: str, fastest: str
) -> None:
    monkeypatch.setattr(dense_training, "KNOWN", {training_key(dense_case(CASE)): (fastest, 1.1)})
    case = CASE._replace(model=model)
    assert variant_of(case) == model
    Compiler(monkeypatch)
    assert isinstance(model_of(case), DenseTraining) == (model == COMPILED)


def test_whole_batches_are_compiled_and_the_odd_last_one_goes_eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = Compiler(monkeypatch)
    model, plain = model_of(CASE._replace(model=COMPILED)), model_of(CASE._replace(model="eager"))
    for count in (16, 8, 16):
        batch = SAMPLES.inputs[:count], SAMPLES.labels[:count]
        assert torch.equal(model.cross_entropy(*batch), plain.cross_entropy(*batch))
    assert compiler.batches == [16, 16]
    assert isinstance(model, DenseTraining)
    before = [parameter.clone() for parameter in model.parameters()]
    model.load(SAMPLES)
    assert compiler.batches == [16, 16, 16]
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(map(torch.equal, before, model.parameters()))
    assert {name for name, _ in model.named_parameters()} == {name for name, _ in plain.named_parameters()}


def test_under_autocast_products_are_of_bfloat16_and_weights_are_not() -> None:
    model, plain = (model_of(CASE._replace(model=model)) for model in ("autocast", "dense"))
    rounded, exact = (each.cross_entropy(*SAMPLES) for each in (model, plain))
    assert rounded != exact
    torch.testing.assert_close(rounded, exact, rtol=0.02, atol=0.02)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert torch.equal(model(SAMPLES.inputs), plain(SAMPLES.inputs))  # it is looked at in float32


@pytest.mark.parametrize(("model", "wrong"), [("compiled", 1.001), ("autocast", 1.5)])
def test_steps_that_are_wrong_are_not_timed(monkeypatch: pytest.MonkeyPatch, model: str, wrong: float) -> None:
    case = CASE._replace(model=model)
    Compiler(monkeypatch)
    pass_dense_gate(case, model_of(case), SAMPLES)
    _forget()
    if model == "compiled":
        Compiler(monkeypatch, wrong)
    else:
        plain = dense_mlp(convert(draw((6, 8, 4), generator(0))))
        monkeypatch.setattr(type(plain), "cross_entropy", _times(wrong, type(plain).cross_entropy))
    with pytest.raises(GateError, match="loss of the chain: expected what the definition says"):
        pass_dense_gate(case, model_of(case), SAMPLES)
    _forget()


def _forget() -> None:
    for key in [key for key in KNOWN if key.startswith("gate 6x8x4")]:
        del KNOWN[key]


def _times(factor: float, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *given, **named: factor * function(*given, **named)
