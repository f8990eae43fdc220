"""What a call that is ready holds of a layer may change: it is not made with a bias that is gone, nor with memory let go of."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from sparse_models.kernels.cpu import tiled
from sparse_models.kernels.cpu._team import noted
from sparse_models.layers.tiled import Tiled
from tests.sparse_models.layers.test_ready_products import READY, check, input_of, layer_of, made_ready
from tests.strategies import normal


@pytest.mark.parametrize("name", READY)
def test_a_layer_may_lose_its_bias_and_have_it_back(name: str) -> None:
    layer = layer_of(name)
    x, bias = input_of(layer), layer.bias
    made_ready(layer, x)
    layer.bias = None
    made_ready(layer, x)
    layer.bias = bias
    made_ready(layer, x)


@pytest.mark.parametrize("name", READY)
def test_a_gradient_that_is_a_negated_view_is_read_as_it_is_meant(name: str) -> None:
    layer = layer_of(name)
    x = input_of(layer)
    grad = normal(5, layer.out_features, len(x), dtype=torch.float32)
    check(layer, x, torch._neg_view(grad).t())  # PyTorch has no public name for it
    made_ready(layer, x)
    check(layer, x, torch._neg_view(grad).t())


@pytest.mark.parametrize("name", READY)
def test_a_structure_may_be_elsewhere_before_a_backward_pass(name: str) -> None:
    layer = layer_of(name)
    x = input_of(layer)
    made_ready(layer, x)
    output, before = layer(x), list[Tensor]()
    for buffer in layer.buffers():
        before.append(buffer.data)
        buffer.data = buffer.data.clone()  # as `share_memory` does before it lets go of what was there
    for place, buffer in zip(before, layer.buffers(), strict=True):
        if buffer is layer.columns or buffer is layer.rows:
            place.zero_()
    check(layer, x, output=output)


@pytest.mark.parametrize("name", READY)
def test_what_a_hook_saved_in_other_strides_is_read_as_it_is_meant(name: str) -> None:
    layer = layer_of(name)
    x = input_of(layer)
    for _ in range(4):
        with saved_tensors_hooks(lambda saved: torch.stack([saved, -saved], -1), lambda saved: saved[..., 0]):
            output = layer(x)
        check(layer, x, output=output)


def test_what_is_noted_within_another_note_is_in_both() -> None:
    layer = layer_of("tiled")
    assert isinstance(layer, Tiled)
    given: tuple[Any, ...] = layer.structures[0], layer.values.detach(), input_of(layer).detach().t().contiguous()
    tiled.product(*given)  # the first of its sizes measures variants
    with noted() as outer:
        tiled.product(*given)
        with noted() as inner:
            tiled.product(*given)
        tiled.product(*given)
    tiled.product(*given)
    assert (len(outer), len(inner)) == (3, 1)
