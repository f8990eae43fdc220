"""Whole neurons removed: a chain in which they are not there, against one in which they are put back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparse_models.errors import InputError
from sparse_models.layers import LAYERS
from sparse_models.models import MLP, draw
from sparse_models.testing import gate_chain
from tests.strategies import mlp_of, normal, seeds, sparsities

COMPACT = LAYERS["compact"]


def by_layer(model: MLP, x: torch.Tensor) -> torch.Tensor:
    *hidden, last = model
    for layer in hidden:
        x = torch.relu(layer(x))
    output: torch.Tensor = last(x)
    return output


@given(st.lists(st.integers(1, 9), min_size=2, max_size=5), sparsities, seeds)
def test_a_chain_gives_what_its_layers_give_one_by_one(sizes: list[int], sparsity: float, seed: int) -> None:
    model = mlp_of("compact", draw(sizes), sparsity, seed)
    x, y = (normal(seed, 5, sizes[0]).requires_grad_() for _ in range(2))
    whole, parts = model(x), by_layer(model, y)
    torch.testing.assert_close(whole, parts)
    grad = normal(seed + 1, 5, sizes[-1])
    found, expected = (
        torch.autograd.grad(output, [of, *model.parameters()], grad, allow_unused=True)
        for output, of in ((whole, x), (parts, y))
    )
    for own, its in zip(found, expected, strict=True):  # a removed neuron's bias has no part in the chain
        torch.testing.assert_close(torch.zeros(()) if own is None else own, torch.zeros_like(own) if its is None else its)
    labels = torch.arange(5) % sizes[-1]
    gate_chain(list(model), x.detach(), labels)


def test_a_chain_computes_nothing_of_removed_neurons(monkeypatch: pytest.MonkeyPatch) -> None:
    model = mlp_of("compact", draw((6, 8, 8, 4)), 0.6)
    hidden = [len(layer.get_buffer("rows")) for layer in model][:-1]
    assert max(hidden) < 8
    seen: list[tuple[int, ...]] = []
    relu = torch.relu

    def noted(x: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(x.shape))
        return relu(x)

    monkeypatch.setattr(torch, "relu", noted)
    model(normal(0, 5, 6))
    assert seen == [(5, size) for size in hidden]


def test_layers_that_keep_other_neurons_are_gone_through_one_by_one() -> None:
    first, second = (mlp_of("compact", draw((6, 8, 4)), 0.5, seed) for seed in (0, 1))
    mixed = MLP([next(iter(first)), list(second)[1]])
    x = normal(0, 5, 6)
    assert COMPACT.chain_output(list(mixed), x) is None
    weights = [(layer.to_dense(), layer.bias) for layer in mixed]
    hidden = torch.relu(torch.nn.functional.linear(x, *weights[0]))
    torch.testing.assert_close(mixed(x), torch.nn.functional.linear(hidden, *weights[1]))


def test_a_hook_on_a_layer_sees_all_its_outputs() -> None:
    model = mlp_of("compact", draw((6, 8, 4)), 0.6)
    seen: list[torch.Size] = []
    next(iter(model)).register_forward_hook(lambda _, inputs, output: seen.append(output.shape))
    model(normal(0, 5, 6))
    assert seen == [(5, 8)]


def test_a_saved_state_that_is_not_of_its_sizes_is_refused_and_changes_nothing() -> None:
    built, larger = (COMPACT(torch.ones(size), torch.ones(size, dtype=torch.bool)) for size in ((3, 4), (5, 4)))
    before = built.to_dense()
    with pytest.raises(InputError, match=r"the saved state of a weight of shape \[3, 4\], got one of at least \[5, 4\]"):
        built.load_state_dict(larger.state_dict())
    assert torch.equal(built.to_dense(), before)


def test_a_loaded_layer_fits_the_next_one_again() -> None:
    model, other = (mlp_of("compact", draw((6, 8, 4)), 0.6, seed) for seed in (0, 1))
    other.load_state_dict(model.state_dict())
    x = normal(0, 5, 6)
    assert COMPACT.chain_output(list(other), x) is not None
    torch.testing.assert_close(other(x), by_layer(model, x))


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # which PyTorch's own forward mode calls
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("layout", ["batch-major", "feature-major"])
def test_a_layer_by_itself_has_the_derivatives_of_its_output(layout: str, has_bias: bool) -> None:
    mask = torch.zeros(6, 5, dtype=torch.bool)
    mask[torch.tensor([0, 3, 4])[:, None], torch.tensor([1, 4])] = True
    layer = COMPACT(normal(0, 6, 5), mask, normal(1, 6) if has_bias else None)

    def output(x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        named = dict(zip(("values", "bias"), parameters, strict=False))
        found: torch.Tensor = torch.func.functional_call(layer, named, (x,))
        return found.t() if layout == "feature-major" else found.contiguous()

    x = normal(2, 3, 5)
    torch.testing.assert_close(layer(x), torch.nn.functional.linear(x, layer.to_dense(), layer.bias))
    inputs = [x, *(one.detach() for one in layer.parameters())]
    torch.autograd.gradcheck(output, [one.requires_grad_() for one in inputs], check_forward_ad=True)
    torch.autograd.gradgradcheck(output, inputs)
    torch.testing.assert_close(torch.func.jacfwd(output)(*inputs), torch.func.jacrev(output)(*inputs))
    changed, x_grad = layer(x).relu_(), torch.autograd.grad(layer(x).relu().sum(), x)[0]
    torch.testing.assert_close(torch.autograd.grad(changed.sum(), x)[0], x_grad)


@pytest.mark.parametrize("has_bias", [True, False])
def test_layers_by_themselves_are_mapped_over_their_weights(has_bias: bool) -> None:
    mask = torch.zeros(6, 5, dtype=torch.bool)
    mask[1:3, 2:] = True
    layer, x = COMPACT(normal(0, 6, 5), mask, normal(1, 6) if has_bias else None), normal(2, 3, 5)
    several = torch.stack([layer.values.detach(), 2 * layer.values.detach()])

    def output(values: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = torch.func.functional_call(layer, {"values": values}, (x,))
        return found

    for is_graph in (True, False):
        with torch.set_grad_enabled(is_graph):
            torch.testing.assert_close(torch.func.vmap(output)(several), torch.stack([*map(output, several)]))


@pytest.mark.parametrize("kept", [(0, 0), (1, 5), (6, 1)])
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_a_layer_of_no_neurons_or_of_one_multiplies_any_batch(kept: tuple[int, int], batch: int) -> None:
    mask = torch.zeros(6, 5, dtype=torch.bool)
    mask[: kept[0], : kept[1]] = True
    layer, x = COMPACT(normal(0, 6, 5), mask, normal(1, 6)), normal(2, batch, 5).requires_grad_()
    expected = torch.nn.functional.linear(x, layer.to_dense(), layer.bias)
    found = layer(x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(one.sum(), x)[0] for one in (found, expected)))
    with torch.no_grad():
        torch.testing.assert_close(layer(x), expected)
