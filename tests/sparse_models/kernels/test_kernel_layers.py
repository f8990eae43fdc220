"""Layers over kernels that see addresses alone, and over a structure kept both ways."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.utils.parametrize
import torch.nn.utils.prune
from torch.func import functional_call
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors

from sparse_models.errors import InputError
from sparse_models.layers import LAYERS
from sparse_models.masks import random_mask
from sparse_models.models import MLP
from sparse_models.testing import Problem, gate
from sparse_models.training import training_step
from sparse_models.updates import move_mask
from tests.strategies import generator, mask_for, normal


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("wrong", [{"bias": normal(0, 8).float()}, {"bias": normal(0, 1)}, {"values": normal(0, 39)}])
def test_values_and_biases_that_do_not_fit_are_refused(wrong: dict[str, torch.Tensor], grad: bool) -> None:
    built = LAYERS["tiled"](normal(0, 8, 10), random_mask((8, 10), 0.5, generator(0)), normal(1, 8))
    with (
        torch.set_grad_enabled(grad),
        pytest.raises(InputError, match=r"expected values of shape \[40\], a bias of shape \[8\]"),
    ):
        functional_call(built, wrong, (normal(2, 20, 10),))


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize(
    "other", [{"values": normal(0, 40, 2)[:, 0]}, {"bias": normal(0, 8, 2)[:, 0]}, {"bias": normal(0, 1).expand(8)}]
)
def test_values_and_biases_in_other_strides_are_read_as_they_are_meant(other: dict[str, torch.Tensor], grad: bool) -> None:
    built = LAYERS["tiled"](normal(0, 8, 10), random_mask((8, 10), 0.5, generator(0)), normal(1, 8))
    alike, x = {name: tensor.contiguous() for name, tensor in other.items()}, normal(2, 20, 10)
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(functional_call(built, other, (x,)), functional_call(built, alike, (x,)))


@pytest.mark.parametrize("layer", [name for name, layer in LAYERS.items() if layer.layout == "feature-major"])
def test_a_parametrized_bias_and_pruned_values_count(layer: str) -> None:
    built = LAYERS[layer](normal(0, 5, 7), mask_for(layer, (5, 7), 0.4), normal(1, 5))
    kept = torch.arange(built.values.numel()).view_as(built.values) % 2
    x, plain = normal(2, 3, 7), copy.deepcopy(built)
    torch.nn.utils.parametrize.register_parametrization(built, "bias", Doubled())
    torch.nn.utils.prune.custom_from_mask(built, "values", kept)
    with torch.no_grad():
        for parameter, factor in ((plain.bias, 2), (plain.values, kept)):
            assert parameter is not None
            parameter.mul_(factor)
        torch.testing.assert_close(built(x), plain(x))
    torch.testing.assert_close(built(x), plain(x))


class Doubled(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


@pytest.mark.parametrize("features", [2**15, 2**15 + 1])
def test_indices_of_16_bits_are_left_where_they_end(features: int) -> None:
    """On both sides, with non-zeros in the last row and the last column."""
    for shape in ((2, features), (features, 2)):
        weight, mask = normal(0, *shape), random_mask(shape, 0.99, generator(0))
        mask[-1, -1] = True
        x, grad = normal(1, 3, shape[1]), normal(2, 3, shape[0])
        gate(LAYERS["tiled"], Problem(weight, mask, None, x, grad))
        built = LAYERS["tiled"](weight, mask)
        loaded = LAYERS["tiled"](weight, ~mask)
        loaded.load_state_dict(built.state_dict())
        assert torch.equal(loaded(x), built(x))


class AnotherDevice(TorchFunctionMode):
    """Another default device than the CPU, as by `torch.set_default_device`: to write to an address there ends the process."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert function not in _device_constructors() or (kwargs or {}).get("device") is not None, function
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("name", "outputs"), [("tiled", 33), ("tiled", 64), ("block16", 33)])  # as slices and as a bitmap
def test_a_layer_on_a_cpu_computes_there_whatever_the_default_device(name: str, outputs: int) -> None:
    weight, mask = normal(0, outputs, 300, dtype=torch.float32), mask_for(name, (outputs, 300), 0.5)
    above = LAYERS[name](normal(1, 16, outputs, dtype=torch.float32), mask_for(name, (16, outputs), 0.5))
    xs, labels = [normal(2, batch, 300, dtype=torch.float32) for batch in (1, 3, 40)], torch.zeros(40, dtype=torch.int64)
    with AnotherDevice():
        layer = LAYERS[name](weight, mask, weight[:, 0])
        model, dense = MLP([layer, above]), layer.to_dense()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for x in xs * 4:
            found = layer(x)
            found.sum().backward()
            for training in (True, False):
                with torch.no_grad():
                    model.train(training)(x)
                    torch.testing.assert_close(layer(x), found.detach())
        training_step(model, x, labels, optimizer, fused=True)
        move_mask(layer, mask, optimizer)
        move_mask(layer, mask, optimizer, in_place=True)
        torch.testing.assert_close(layer(x), linear(x, layer.to_dense(), layer.bias))
    assert not torch.equal(layer.to_dense(), dense)
