"""Tensors whose numbers do not lie at their address, or lie there otherwise: computed with, or refused in a sentence."""

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.func import functional_call, functionalize, grad, jacrev, vmap
from torch.nn import functional
from torch.utils._pytree import tree_map

from sparse_models.errors import InputError
from sparse_models.layers import SparseLinear
from tests.sparse_models.layers.test_in_pytorch import KERNELS, layer_of, like

NAMES = [*KERNELS, "fan_in", "compact", "masked", "input_skipping"]
pytestmark = pytest.mark.filterwarnings("ignore:.*is in prototype stage", "ignore:.*is in beta")


class Wrapper(Tensor):
    """A tensor that has another inside, and no memory: as those of quantized, distributed and logged numbers are."""

    within: Tensor

    @staticmethod
    def __new__(cls: type["Wrapper"], within: Tensor) -> "Wrapper":  # noqa: PYI034  # Python 3.10 has no Self
        return Tensor._make_wrapper_subclass(cls, within.shape, dtype=within.dtype, strides=within.stride())

    def __init__(self, within: Tensor) -> None:
        self.within = within

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        found = func(*tree_map(bare, args), **tree_map(bare, kwargs or {}))
        return tree_map(lambda one: cls(one) if isinstance(one, Tensor) else one, found)


class Named(Tensor):
    """A class of one's own that leaves operators as they are."""


def bare(one: Any) -> Any:
    return one.within if isinstance(one, Wrapper) else one


def with_parameters(layer: SparseLinear, x: Tensor, change: Callable[[Tensor], Tensor]) -> Any:
    return functional_call(layer, {name: change(one.detach()) for name, one in layer.named_parameters()}, (x,))


def made_functional(layer: SparseLinear, x: Tensor) -> Any:
    """As torch.func.functionalize does, by hand."""
    wrapped = torch._to_functional_tensor(x)
    torch._enable_functionalization(reapply_views=False)
    try:
        found = layer(wrapped)
    finally:
        torch._disable_functionalization()
    torch._sync(found)  # type: ignore[attr-defined, no-untyped-call]
    return torch._from_functional_tensor(found)


def negated(x: Tensor) -> Tensor:
    return torch.view_as_complex(torch.stack([x, -x], -1)).conj().imag


STAND_INS: dict[str, Callable[[SparseLinear, Tensor], Any]] = {
    "functionalized": lambda layer, x: functionalize(layer)(x),
    "functional": made_functional,
    "functionalized weights": lambda layer, x: functionalize(
        lambda own: functional_call(layer, own, (x,)),
    )(dict(layer.named_parameters())),
    "mapped": lambda layer, x: vmap(layer)(x[:, None])[:, 0],
    "mapped weights": lambda layer, x: vmap(lambda own: functional_call(layer, own, (x,)))(
        {name: torch.stack([torch.zeros_like(one), one.detach()]) for name, one in layer.named_parameters()}
    )[1],
    "mapped and functionalized": lambda layer, x: functionalize(vmap(layer))(x[:, None])[:, 0],
    "wrapped": lambda layer, x: bare(layer(Wrapper(x))),
    "wrapped weights": lambda layer, x: bare(with_parameters(layer, x, Wrapper)),
    "class": lambda layer, x: layer(x.as_subclass(Named)).as_subclass(Tensor),
    "negated": lambda layer, x: layer(negated(x)),
    "negated weights": lambda layer, x: with_parameters(layer, x, negated),
    "weights in other strides": lambda layer, x: with_parameters(layer, x, lambda own: torch.stack([own, own], -1)[..., 0]),
    "strides": lambda layer, x: layer(torch.stack([x, x], -1)[..., 0]),
    "shared": lambda layer, x: layer(x.clone().share_memory_()),
}


@pytest.mark.parametrize("with_gradients", [False, True])
@pytest.mark.parametrize(
    ("kind", "name"), [pair for pair in product(STAND_INS, NAMES) if pair != ("wrapped weights", "csr")]
)  # of which PyTorch makes no sparse tensor
def test_what_stands_for_numbers_is_computed_with_as_they_are(kind: str, name: str, with_gradients: bool) -> None:
    layer = layer_of(name).eval()
    for x in (like(layer, 1), like(layer, 7)):
        with torch.set_grad_enabled(with_gradients):
            for _ in range(3):
                layer(x)  # by then calls are ready
            found = STAND_INS[kind](layer, x)
        torch.testing.assert_close(found, functional.linear(x, layer.to_dense(), layer.bias), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("with_gradients", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_one_number_for_all_and_zeros_that_are_nowhere(name: str, with_gradients: bool) -> None:
    layer = layer_of(name).eval()
    x = like(layer, 7)
    with torch.set_grad_enabled(with_gradients):
        for given in (
            x[:1].expand(7, -1),
            x[:, :1].expand(-1, 300),
            torch._efficientzerotensor((7, 300), dtype=x.dtype),
            x[:0],
        ):
            expected = functional.linear(given.clone(), layer.to_dense(), layer.bias)
            torch.testing.assert_close(layer(given), expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_of_weights_without_numbers_the_output_has_none(name: str) -> None:
    layer = layer_of(name).eval()
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True) as mode:
        x = like(layer, 7)
        for found in (layer(x), with_parameters(layer, x, mode.from_tensor)):
            assert isinstance(found, FakeTensor)
            assert found.shape == (7, 33)


@pytest.mark.parametrize("name", NAMES)
def test_derivatives_of_functions_are_those_of_the_dense_weight(name: str) -> None:
    layer = layer_of(name)
    x = like(layer, 3)
    slope = grad(lambda own: functional_call(layer, own, (x,)).square().sum())(dict(layer.named_parameters()))
    layer(x).square().sum().backward()
    torch.testing.assert_close(slope["values"], layer.values.grad, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(jacrev(layer)(x[0]), layer.to_dense())


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize(
    "change", [Tensor.to_sparse, Tensor.to_sparse_csr, Tensor.to_mkldnn, lambda x: torch.nested.nested_tensor([x])]
)
def test_what_is_no_matrix_in_memory_is_refused(name: str, change: Callable[[Tensor], Tensor]) -> None:
    layer = layer_of(name)
    for grad_is_on in (True, False):
        with torch.set_grad_enabled(grad_is_on), pytest.raises(InputError, match=r"expected an input .*, got .*; "):
            layer(change(like(layer, 7)))


@pytest.mark.parametrize("name", KERNELS)
def test_a_gradient_of_no_numbers_is_refused_and_one_of_zeros_taken(name: str) -> None:
    layer = layer_of(name)
    ones = torch.ones(7, 33, dtype=layer.values.dtype)
    for given, got in (Wrapper(ones), "Wrapper"), (ones.to_sparse(), "Tensor"):
        with pytest.raises(InputError, match=f"expected an output's gradient that is numbers in memory, got {got}; unwrap it"):
            layer(like(layer, 7)).backward(given)
    layer(like(layer, 7)).backward(torch._efficientzerotensor((7, 33), dtype=layer.values.dtype))
    assert layer.values.grad is not None
    assert not layer.values.grad.any()
