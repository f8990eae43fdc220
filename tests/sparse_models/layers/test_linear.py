"""Layers in the place of nn.Linear: any leading dimensions, from one and back, and what cannot be taken over."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, prune

from sparse_models.errors import InputError
from sparse_models.layers import LAYERS
from tests.strategies import mask_for, normal, seeds, sizes, widest


def linear_of(layer: str, outputs: int, inputs: int, seed: int, *, bias: bool = True) -> nn.Linear:
    dtype = widest(layer)
    linear = nn.Linear(inputs, outputs, bias=bias, dtype=dtype)
    with torch.no_grad():
        linear.weight.copy_(normal(seed, outputs, inputs, dtype=dtype))
    return linear


@pytest.mark.parametrize("layer", LAYERS)
@settings(max_examples=15)  # for each layer
@given(st.lists(st.integers(0, 3), max_size=3), sizes, sizes, seeds)
def test_leading_dimensions_are_those_of_the_input(
    layer: str, leading: list[int], outputs: int, inputs: int, seed: int
) -> None:
    linear = linear_of(layer, outputs, inputs, seed)
    mask = mask_for(layer, (outputs, inputs), 0.5, seed)
    built = LAYERS[layer].from_linear(linear, mask)
    with torch.no_grad():
        linear.weight *= mask
    x = normal(seed + 1, *leading, inputs, dtype=widest(layer)).requires_grad_()
    y = x.detach().clone().requires_grad_()
    expected, found = linear(x), built(y)
    torch.testing.assert_close(found, expected)
    expected.square().sum().backward()
    found.square().sum().backward()
    torch.testing.assert_close(y.grad, x.grad)
    assert linear.weight.grad is not None
    assert built.values.grad is not None
    torch.testing.assert_close(built.unpack(built.values.grad), linear.weight.grad * mask)


@pytest.mark.parametrize("layer", LAYERS)
@settings(max_examples=15)  # for each layer
@given(sizes, sizes, seeds, st.booleans(), st.booleans(), st.booleans(), st.booleans(), st.booleans())
def test_from_a_linear_and_back(
    layer: str, outputs: int, inputs: int, seed: int, bias: bool, frozen: bool, frozen_bias: bool, training: bool, pruned: bool
) -> None:
    linear = linear_of(layer, outputs, inputs, seed, bias=bias).train(training)
    mask = mask_for(layer, (outputs, inputs), 0.5, seed)
    linear.weight.requires_grad_(not frozen)
    if linear.bias is not None:
        linear.bias.requires_grad_(not frozen_bias)
    if pruned and not frozen:
        prune.custom_from_mask(linear, "weight", mask)
        built = LAYERS[layer].from_linear(linear)
    else:
        built = LAYERS[layer].from_linear(linear, mask.to(torch.float32) if seed % 2 else mask)
    weight = linear.weight.detach() * mask
    assert torch.equal(built.mask, mask)
    back = built.to_linear()
    for made in (built, back):
        assert made.training == training
        assert made.bias is None or made.bias.requires_grad != frozen_bias
    assert built.values.requires_grad == back.weight.requires_grad == (not frozen)
    assert type(back) is nn.Linear
    assert (back.in_features, back.out_features) == (inputs, outputs)
    assert torch.equal(back.weight, weight)
    with torch.no_grad():  # copies, both times
        back.weight += 1
        built.values.add_(1)
    assert torch.equal(linear.weight.detach() * mask, weight)


def odd() -> dict[str, tuple[nn.Module, Any, str]]:
    """Linear layers, masks, and what is said of them."""

    class Twice(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
            return 2 * super().forward(input)

    hooked, pruned, twice_pruned = nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(3, 2)
    hooked.register_forward_hook(lambda *_: None)
    prune.random_unstructured(pruned, "bias", 1)
    prune.random_unstructured(twice_pruned, "weight", 1)
    return {
        "a subclass": (Twice(3, 2), None, "expected nn.Linear, got Twice, which may"),
        "a hook": (hooked, None, "expected a module without hooks, got hook .*<lambda>"),
        "a pruned bias": (pruned, None, "expected pruning of the weight alone, got 'bias' pruned"),
        "two masks": (twice_pruned, torch.ones(2, 3), "expected one mask, got one beside that of torch.nn.utils.prune"),
        "parametrized": (parametrizations.weight_norm(nn.Linear(3, 2)), None, "got some of weight; call torch.nn.utils.param"),
        "lazy": (nn.LazyLinear(2), None, "got LazyLinear that has none yet; call the model once"),
        "a mask of another shape": (nn.Linear(3, 2), torch.ones(3, 2), r"expected a mask of shape \[2, 3\], .* got \[3, 2\]"),
        "a mask of numbers": (nn.Linear(3, 2), torch.full((2, 3), 0.5), "expected a mask of True and False, or of 1 and 0"),
        "a dtype": (
            nn.Linear(3, 2, dtype=torch.complex64),
            None,
            "Tiled: expected .* got complex64 on cpu; convert",
        ),
        "no device": (nn.Linear(3, 2, device="meta"), None, "Tiled: expected .* got float32 on meta; convert the weight"),
    }


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
@pytest.mark.parametrize("kind", ["a subclass", "a hook", "a pruned bias", "two masks", "parametrized", "lazy",
                                  "a mask of another shape", "a mask of numbers", "a dtype", "no device"])  # fmt: skip
def test_what_cannot_be_taken_over_is_refused_in_one_sentence(kind: str) -> None:
    linear, mask, said = odd()[kind]
    with pytest.raises(InputError, match=said):
        LAYERS["tiled"].from_linear(linear, mask)  # type: ignore[arg-type]


def test_a_hook_on_a_layer_is_refused_on_the_way_back() -> None:
    layer = LAYERS["tiled"].from_linear(nn.Linear(3, 2))
    layer.register_full_backward_hook(lambda *_: None)
    with pytest.raises(InputError, match="expected a module without hooks"):
        layer.to_linear()


@pytest.mark.parametrize("layer", ["tiled", "masked"])
def test_a_mask_does_not_move_while_something_stands_in_the_place_of_the_values(layer: str) -> None:
    built = LAYERS[layer].from_linear(nn.Linear(3, 2))
    prune.identity(built, "values")
    x = torch.ones(1, 3)
    expected = built(x)
    with pytest.raises(InputError, match="expected values as the layer made them"):
        built.set_mask(torch.eye(2, 3).bool())
    assert torch.equal(built(x), expected)


class Matrix:
    """What SciPy's sparse matrices can do of which a mask is made."""

    def __init__(self, mask: torch.Tensor) -> None:
        self.mask = mask

    def toarray(self) -> Any:
        return self.mask.numpy()


def read_only(mask: torch.Tensor) -> Any:
    """As a file that is mapped into memory, and an array of JAX, are."""
    array = mask.numpy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "form",
    [
        torch.Tensor.numpy,
        read_only,
        torch.Tensor.tolist,
        Matrix,
        lambda mask: mask.float().to_sparse(),
        lambda mask: mask.double().to_sparse_csr(),
        lambda mask: mask.int().t().contiguous().t(),
    ],
)
def test_a_mask_is_taken_in_whatever_form_others_have_it(form: Callable[[torch.Tensor], Any]) -> None:
    mask = mask_for("tiled", (4, 5), 0.5)
    assert torch.equal(LAYERS["tiled"].from_linear(nn.Linear(5, 4), form(mask)).mask, mask)


@pytest.mark.parametrize("mask", ["kept", {0: True}, [[True], [True, False]], object()])
def test_what_is_no_mask_is_refused(mask: Any) -> None:
    with pytest.raises(InputError, match=r"expected a mask that is a tensor or an array, got [a-z]*; convert it"):
        LAYERS["tiled"].from_linear(nn.Linear(5, 4), mask)
    for given_as, got in ((mask, type(mask).__name__), (torch.ones(4, 5).bool().to_sparse(), "torch.sparse_coo")):
        with pytest.raises(InputError, match=f"expected a bool mask of shape .4, 5. that is a tensor in strides, got {got}; "):
            LAYERS["tiled"](torch.ones(4, 5), given_as)
        layer = LAYERS["tiled"].from_linear(nn.Linear(5, 4))
        with pytest.raises(InputError, match=f"expected a bool mask of shape .4, 5. that is a tensor in strides, got {got}; "):
            layer.set_mask(given_as)
        assert layer.nnz_as_set == 20
