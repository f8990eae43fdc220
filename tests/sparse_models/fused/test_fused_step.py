"""The fused step of a model, which is the step layer by layer in all but its time."""

from typing import Any

import pytest
import torch
from torch import Tensor

from bench.cases import Case
from bench.works.gates import pass_gate
from sparse_models.errors import GateError, InputError
from sparse_models.kernels.chain import gradients
from sparse_models.kernels.cpu.chain._ready import Ready
from sparse_models.kernels.cpu.chain.output import Output
from sparse_models.kernels.link import Gradients
from sparse_models.layers.tiled import Tiled
from sparse_models.models import MLP, draw, sparse_mlp
from sparse_models.testing import away_from_corners, gate_chain
from sparse_models.testing.chain import gate_output
from tests.helpers.in_process import ROOT

pytestmark = pytest.mark.usefixtures("poisoned")


def test_a_subclass_another_forward_and_hooks_of_all_modules_are_not_passed_over() -> None:
    class Halved(Tiled):
        def product(self, x: Tensor) -> Tensor:
            return super().product(x) / 2

    plain = sparse_mlp(draw((6, 8, 4)), "tiled", 0.5)
    halved = MLP([Halved(layer.to_dense(), layer.mask, layer.bias) for layer in plain])
    x, labels = torch.randn(8, 6, dtype=torch.float64), torch.arange(8) % 4
    torch.testing.assert_close(halved.cross_entropy(x, labels), halved.cross_entropy(x, labels, fused=False))
    seen: list[int] = []
    handle = torch.nn.modules.module.register_module_forward_hook(lambda *_: seen.append(1))
    plain.cross_entropy(x, labels)
    handle.remove()
    assert seen
    first = next(iter(plain))
    vars(first)["forward"] = lambda x: type(first).forward(first, x) * 2
    torch.testing.assert_close(plain.cross_entropy(x, labels), plain.cross_entropy(x, labels, fused=False))


def test_gradients_are_handed_over_and_a_second_backward_pass_says_so() -> None:
    model = sparse_mlp(draw((6, 8, 4)), "tiled", 0.5)
    loss = model.cross_entropy(torch.randn(8, 6, dtype=torch.float64), torch.arange(8) % 4)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="expected one backward pass through a fused step, got a second; use fused=False"):
        loss.backward()


def test_a_fused_step_is_the_step_layer_by_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its gradients are in the parameters, it scales as the loss does, and what watches single layers is not passed over."""
    model = sparse_mlp(draw((6, 8, 7, 4)), "tiled", 0.5, torch.Generator().manual_seed(0))
    x, labels = torch.randn(50, 6, dtype=torch.float64), torch.arange(50) % 4
    runs: list[int] = []

    def counted(*given: Any) -> Gradients:
        runs.append(1)
        return gradients(*given)

    monkeypatch.setattr("sparse_models.layers._feature_major.chain_loss.chain.gradients", counted)

    def told(*, fused: bool) -> tuple[Tensor, list[Tensor | None]]:
        model.zero_grad()
        loss = model.cross_entropy(x, labels, fused=fused)
        (3 * loss).backward()
        return loss.detach(), [parameter.grad for parameter in model.parameters()]

    by_layer = told(fused=False)
    assert not runs
    torch.testing.assert_close(told(fused=True), by_layer)
    assert runs == [1]
    seen: list[int] = []
    handle = next(iter(model)).register_forward_hook(lambda *_: seen.append(1))
    torch.testing.assert_close(told(fused=True), by_layer)
    handle.remove()
    assert (runs, seen) == ([1], [1])
    with torch.no_grad():
        torch.testing.assert_close(model.cross_entropy(x, labels), by_layer[0])
    asked = x.clone().requires_grad_()
    model.cross_entropy(asked, labels).backward()
    assert asked.grad is not None
    assert runs == [1]


def test_the_training_of_the_readme_runs() -> None:
    """On two random batches, so that it takes no time."""
    text = (ROOT / "README.md").read_text()
    [code] = [part.partition("```")[0] for part in text.split("```python\n")[1:] if "cross_entropy" in part.partition("```")[0]]
    names: dict[str, Any] = {}
    exec(code.replace("range(10)", "range(2)"), names)  # noqa: S102  # our own page
    assert all(parameter.grad is not None for parameter in names["model"].parameters())


def test_a_sample_at_a_corner_of_relu_does_not_fail_the_gate() -> None:
    """One number in 64 that rounding may take for more or less than 0 changes a gradient by a share of some percent."""
    layers = list(sparse_mlp(draw((6, 8, 7, 4), torch.Generator().manual_seed(0)), "tiled", 0.0))
    x, labels = torch.randn(64, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)), torch.arange(64) % 4
    first = layers[0]
    weight, bias = first.to_dense()[3], first.bias
    assert bias is not None
    off = (x[5] @ weight + bias[3]).item()
    x[5] -= weight * off / weight.square().sum()  # now 0, but for rounding
    assert abs((x[5] @ weight + bias[3]).item()) < 1e-15
    moved = away_from_corners(layers, x)
    assert [number for number in range(64) if not torch.equal(moved[number], x[number])] == [5]
    assert torch.equal(moved[5], x[0])
    gate_chain(layers, x, labels)
    assert torch.equal(away_from_corners(layers, x[5:6]), x[5:6])  # nothing better is there


@pytest.mark.parametrize("wrong", ["loss", "values", "biases"])
def test_a_wrong_fused_step_does_not_pass_its_gate(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    layers = list(sparse_mlp(draw((6, 8, 7, 4)), "tiled", 0.5, torch.Generator().manual_seed(0)))
    x, labels = torch.randn(50, 6, dtype=torch.float64), torch.arange(50) % 4
    gate_chain(layers, x, labels)
    gate_chain(list(sparse_mlp(draw((6, 8, 4)), "csr", 0.5)), x, labels)  # which has none

    def spoiled(*given: Any) -> Gradients:
        found = gradients(*given)
        spoil = {"loss": found.loss, "values": found.values[-1], "biases": found.biases[-1]}[wrong]
        spoil.mul_(1.001)
        return found

    monkeypatch.setattr("sparse_models.layers._feature_major.chain_loss.chain.gradients", spoiled)
    told = "of the chain: expected what the definition says, got another; nothing is timed"
    with pytest.raises(GateError, match=told):
        gate_chain(layers, x, labels)
    monkeypatch.setattr("bench.works.once_per_run.KNOWN", {})
    shape = "6x8x4b10"
    for op in ("training_step", "train"):
        with pytest.raises(GateError, match=told):
            pass_gate(Case(op, "sparse", "tiled", "static", shape, 0.5, "cpu", "float64", 2), "tiled", "batch-major")
    pass_gate(Case("step", "sparse", "tiled", "static", shape, 0.5, "cpu", "float64", 2), "tiled", "batch-major")


def unusual() -> dict[str, tuple[Tensor, Tensor]]:
    """Inputs and labels for a chain of float64 layers from 6 features to 4 classes that its kernel must not be given."""
    x, labels = torch.randn(8, 6, dtype=torch.float64), torch.arange(8) % 4
    return {
        "features": (x[:, :5], labels),
        "dtype": (x.float(), labels),
        "fewer labels": (x, labels[:7]),
        "a label too large": (x, labels + 1),
        "a label below 0": (x, labels - 1),
        "labels of another kind": (x, labels.float()),
        "dimensions": (x[None], labels[None]),
    }


@pytest.mark.parametrize("kind", unusual())
def test_what_the_kernel_would_misread_goes_layer_by_layer_and_is_refused_there(kind: str) -> None:
    model = sparse_mlp(draw((6, 8, 4)), "tiled", 0.5)
    with pytest.raises((InputError, RuntimeError, ValueError, IndexError)):
        model.cross_entropy(*unusual()[kind])


def test_what_layer_by_layer_takes_the_fused_step_takes_too() -> None:
    """A label of -100 is left out, and shares of classes are labels too, as PyTorch has it; an empty batch has no loss."""
    model = sparse_mlp(draw((6, 8, 4)), "tiled", 0.5)
    x, labels = torch.randn(8, 6, dtype=torch.float64), torch.arange(8) % 4
    torch.testing.assert_close(
        model.cross_entropy(x, torch.where(labels == 0, -100, labels)), model.cross_entropy(x[labels > 0], labels[labels > 0])
    )
    shares = torch.nn.functional.one_hot(labels, 4).double()
    torch.testing.assert_close(model.cross_entropy(x, shares), model.cross_entropy(x, labels))
    assert model.cross_entropy(x[:0], labels[:0]).isnan()


def test_layers_that_do_not_fit_are_refused_as_layer_by_layer() -> None:
    first, second = (next(iter(sparse_mlp(draw(sizes), "tiled", 0.5))) for sizes in ((6, 8), (7, 4)))
    with pytest.raises(InputError, match=r"expected an input of shape \[..., 7\], got \[5, 8\]"):
        MLP([first, second]).cross_entropy(torch.randn(5, 6, dtype=torch.float64), torch.zeros(5, dtype=torch.int64))


@pytest.mark.parametrize("wrong", ["loss", "values", "moments"])
def test_a_wrong_step_with_its_optimizer_does_not_pass_its_gate(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    layers = list(sparse_mlp(draw((6, 8, 7, 4)), "tiled", 0.5, torch.Generator().manual_seed(0)))
    x, labels = torch.randn(50, 6, dtype=torch.float64), torch.arange(50) % 4
    before = [layer.to_dense() for layer in layers]
    gate_chain(layers, x, labels)
    assert all(torch.equal(layer.to_dense(), weight) for layer, weight in zip(layers, before, strict=True))
    step = Ready.step

    def spoiled(self: Ready, *given: Any) -> Tensor:
        loss, [parameter, *_] = step(self, *given), self.parameters
        assert parameter is not None
        spoil = {"loss": loss, "values": parameter.values, "moments": parameter.moments[1]}[wrong]
        return spoil.mul_(1.001) if wrong == "loss" else (spoil.mul_(1.001), loss)[1]

    monkeypatch.setattr(Ready, "step", spoiled)
    with pytest.raises(GateError, match="a step with its optimizer of the chain: expected what the definition says"):
        gate_chain(layers, x, labels)


def test_a_wrong_output_of_a_chain_does_not_pass_its_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    layers, x = list(sparse_mlp(draw((6, 8, 7, 4)), "tiled", 0.5)), torch.randn(50, 6, dtype=torch.float64)
    gate_output(layers, x)
    output = Output.of
    monkeypatch.setattr(Output, "of", lambda self, given: output(self, given).mul_(1.001))
    with pytest.raises(GateError, match="output of the chain: expected what the definition says"):
        gate_output(layers, x)
    monkeypatch.setattr("bench.works.once_per_run.KNOWN", {})
    case = Case("forward", "sparse", "tiled", "static", "6x8x4b10", 0.5, "cpu", "float64", 2)
    with pytest.raises(GateError, match="output of the chain"):
        pass_gate(case, "tiled", "batch-major")
