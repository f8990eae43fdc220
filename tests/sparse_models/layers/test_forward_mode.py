"""Derivatives that torch takes forwards: of the weight that a layer stands for, whatever its kernels know."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from sparse_models.models import MLP
from sparse_models.sparsification.sequential import fit_sequences
from tests.sparse_models.layers.test_in_pytorch import TRACED, layer_of, like

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated")  # by which PyTorch makes derivatives


def tangent(model: Callable[[Tensor], Tensor], x: Tensor, direction: Tensor) -> Tensor:
    with forward_ad.dual_level():
        found: Tensor = forward_ad.unpack_dual(model(forward_ad.make_dual(x, direction))).tangent
    return found


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("name", TRACED)
def test_a_tangent_goes_through_the_layer(name: str, grad: bool) -> None:
    layer = layer_of(name).eval()
    x, direction = like(layer, 2), like(layer, 2, seed=1)
    with torch.set_grad_enabled(grad):
        for _ in range(3):
            layer(x)  # by then calls are ready
        expected = direction @ layer.to_dense().t()
        torch.testing.assert_close(tangent(layer, x, direction), expected, rtol=1e-5, atol=1e-3)
        torch.testing.assert_close(torch.func.jvp(layer, (x,), (direction,))[1], expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("batch", [1, 40])
def test_a_tangent_goes_through_chains(batch: int, grad: bool) -> None:
    layers = [layer_of("tiled", 20, 30), layer_of("tiled", 10, 20)]
    net = nn.Sequential(layers[0], nn.ReLU(), layers[1]).eval()
    fit_sequences(net)
    x, direction = torch.randn(batch, 30), torch.randn(batch, 30)
    with torch.set_grad_enabled(grad):
        for model in (net, MLP(layers).eval()):
            for _ in range(3):
                model(x)
            slope = (direction @ layers[0].to_dense().t()) * (layers[0](x) > 0)
            torch.testing.assert_close(tangent(model, x, direction), slope @ layers[1].to_dense().t(), rtol=1e-5, atol=1e-3)
