"""The fused step of a chain of layers against its plain definition."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench.cases import Case
from bench.works.gates import pass_gate
from sparse_models.errors import GateError, InputError
from sparse_models.kernels._pass import tile_by_tile
from sparse_models.kernels._tile import TILE_BYTES
from sparse_models.kernels.chain import define_gradients, gradients, layer_by_layer
from sparse_models.kernels.link import Gradients, Link
from sparse_models.layers.tiled import Tiled
from sparse_models.models import MLP, draw, sparse_mlp
from sparse_models.testing import gate_chain
from tests.helpers.kernel_checks import BATCHES, Watcher, close
from tests.strategies import seeds

pytestmark = pytest.mark.usefixtures("poisoned")


def links(seed: int, sizes: tuple[int, ...], density: float, dtype: torch.dtype, *, with_bias: bool) -> list[Link]:
    numbers, found = torch.Generator().manual_seed(seed), []
    for inputs, outputs in itertools.pairwise(sizes):
        weight, bias = (torch.randn(size, generator=numbers, dtype=dtype) for size in ((outputs, inputs), (outputs,)))
        mask = torch.rand(outputs, inputs, generator=numbers) < density
        found.append(Tiled(weight, mask, bias if with_bias else None).link())
    return found


@settings(max_examples=40)
@given(
    seeds,
    st.lists(st.integers(1, 30), min_size=2, max_size=5).map(tuple),
    st.sampled_from(BATCHES),
    st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    st.sampled_from([torch.float32, torch.float64]),
    st.booleans(),
    st.booleans(),
)
def test_a_chain_has_the_loss_and_gradients_of_its_definition(
    seed: int, sizes: tuple[int, ...], batch: int, density: float, dtype: torch.dtype, with_bias: bool, feature_major: bool
) -> None:
    numbers = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, sizes[0], generator=numbers, dtype=dtype)
    x = x.t().contiguous().t() if feature_major else x
    labels = torch.randint(sizes[-1], (batch,), generator=numbers)
    linked = links(seed, sizes, density, dtype, with_bias=with_bias)
    defined = define_gradients(linked, x, labels)
    for found in (tile_by_tile(linked, x.contiguous(), labels), layer_by_layer(linked, x, labels)):
        close(found.loss, defined.loss)
        for mine, its in zip([*found.values, *found.biases], [*defined.values, *defined.biases], strict=True):
            close(mine, its)


def test_logits_of_any_size_have_a_finite_loss() -> None:
    [link] = links(0, (4, 3), 1.0, torch.float32, with_bias=True)
    x, labels = 1e4 * torch.randn(20, 4, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3
    found, defined = gradients([link], x, labels), define_gradients([link], x, labels)
    torch.testing.assert_close(found.loss, defined.loss)
    torch.testing.assert_close(found.values[0], defined.values[0])


@pytest.mark.parametrize("way", [tile_by_tile, layer_by_layer])
def test_what_is_not_a_number_is_not_hidden_by_relu(way: Any) -> None:
    linked = links(0, (4, 6, 3), 1.0, torch.float32, with_bias=True)
    x, labels = torch.randn(20, 4), torch.arange(20) % 3
    x[7] = torch.nan
    found = way(linked, x, labels)
    assert found.loss.isnan()
    assert all(gradient.isnan().all() for gradient in (found.values[-1], found.biases[-1]))


def test_inputs_and_labels_may_have_any_strides() -> None:
    linked = links(0, (4, 6, 3), 0.5, torch.float32, with_bias=True)
    x, labels = torch.randn(4, 40), torch.randint(3, (80,))
    found, defined = gradients(linked, x.t(), labels[::2]), define_gradients(linked, x.t(), labels[::2])
    close(found.loss, defined.loss)
    close(found.values[0], defined.values[0])


def test_a_chain_goes_layer_by_layer_where_its_tile_fits_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    went: list[str] = []
    for way in ("tile_by_tile", "layer_by_layer"):
        monkeypatch.setattr(f"sparse_models.kernels.chain.{way}", lambda *_, way=way: went.append(way))
    for features in (4, TILE_BYTES // 16):
        gradients(links(0, (features, 2), 0.0, torch.float32, with_bias=False), torch.rand(2, features), torch.tensor([0, 1]))
    assert went == ["tile_by_tile", "layer_by_layer"]


def test_a_subclass_and_hooks_of_all_modules_are_not_passed_over() -> None:
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


def test_gradients_are_handed_over_and_a_second_backward_pass_says_so() -> None:
    model = sparse_mlp(draw((6, 8, 4)), "tiled", 0.5)
    loss = model.cross_entropy(torch.randn(8, 6, dtype=torch.float64), torch.arange(8) % 4)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="expected one backward pass through a fused step, got a second; use fused=False"):
        loss.backward()


@pytest.mark.parametrize("batch", [1, 70, 300, 1100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_chain_touches_what_is_its_own(watcher: Watcher, batch: int, dtype: torch.dtype) -> None:
    numbers = torch.Generator().manual_seed(0)
    x, labels = torch.randn(batch, 4, generator=numbers, dtype=dtype), torch.randint(3, (batch,), generator=numbers)
    for way in (tile_by_tile, layer_by_layer):
        way(links(0, (4, 5, 3), 0.5, dtype, with_bias=True), x, labels)
    assert watcher.written
    assert not watcher.outside
    assert not watcher.contested


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_chain_always_gives_the_same_on_a_number_of_threads(threads: int) -> None:
    torch.set_num_threads(threads)
    linked = links(0, (20, 30, 10), 0.3, torch.float32, with_bias=True)
    x, labels = torch.rand(1500, 20), torch.arange(1500) % 10
    first = gradients(linked, x, labels)
    for _ in range(10):
        again = gradients(linked, x, labels)
        assert torch.equal(first.loss, again.loss)
        assert all(torch.equal(*pair) for pair in zip(first.values, again.values, strict=True))


def test_a_fused_step_is_the_step_layer_by_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its gradients are in the parameters, it scales as the loss does, and what watches single layers is not passed over."""
    model = sparse_mlp(draw((6, 8, 7, 4)), "tiled", 0.5, torch.Generator().manual_seed(0))
    x, labels = torch.randn(50, 6, dtype=torch.float64), torch.arange(50) % 4
    runs: list[int] = []

    def counted(*given: Any) -> Gradients:
        runs.append(1)
        return gradients(*given)

    monkeypatch.setattr("sparse_models.layers.tiled.chain.gradients", counted)

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
    text = (Path(__file__).parents[3] / "README.md").read_text()
    [code] = [part.partition("```")[0] for part in text.split("```python\n")[1:] if "cross_entropy" in part.partition("```")[0]]
    names: dict[str, Any] = {}
    exec(code.replace("range(10)", "range(2)"), names)  # noqa: S102  # our own page
    assert all(parameter.grad is not None for parameter in names["model"].parameters())


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

    monkeypatch.setattr("sparse_models.layers.tiled.chain.gradients", spoiled)
    told = "of the fused step: expected what the definition says, got another; nothing is timed"
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
        "dimensions": (x[0], labels[0]),
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
    with pytest.raises(InputError, match=r"expected an input of shape \[batch, 7\], got \[5, 8\]"):
        MLP([first, second]).cross_entropy(torch.randn(5, 6, dtype=torch.float64), torch.zeros(5, dtype=torch.int64))


@pytest.mark.parametrize("grad", [True, False])
def test_an_input_of_another_dtype_is_refused_in_one_sentence(grad: bool) -> None:
    layer = next(iter(sparse_mlp(draw((6, 4)), "tiled", 0.5)))
    with torch.set_grad_enabled(grad), pytest.raises(InputError, match="Tiled: expected an input of float32 or float64 on cpu"):
        layer(torch.randn(3, 6))
