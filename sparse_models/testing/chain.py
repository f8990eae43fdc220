"""The gate of a fused training step: the layers of a chain one by one, in float64."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from sparse_models.layers import SparseLinear
from sparse_models.models import MLP
from sparse_models.testing.exact import exact_products
from sparse_models.testing.refusals import require

SAFETY = 16  # times what errors of rounding add up to


def gate_chain(layers: Sequence[SparseLinear], x: Tensor, labels: Tensor, *, fused: bool = True) -> None:
    """Raise GateError unless what the layers do together, where they have a way, is what goes layer by layer in float64.

    That is their cross-entropy where they have one of their own and `fused` asks for it, or their output.
    """
    x = away_from_corners(layers, x)
    loss = layers[0].chain_cross_entropy(list(layers), x, labels) if fused else None
    if loss is None and layers[0].chain_output(layers, x) is not None:
        loss = MLP(layers).cross_entropy(x, labels)
    if loss is not None:
        gate_loss(layers, loss, x, labels)


def away_from_corners(layers: Sequence[SparseLinear], x: Tensor) -> Tensor:
    """Return x [batch, in] with other samples of it in place of those for which rounding may decide what ReLU stops.

    A sample is one of those where a hidden number is within a few times what independent errors of rounding add up to. If they
    are more than half, as in 16 bit, x is returned as it is.
    """
    hidden, nearest = x.double(), x.new_zeros(len(x), dtype=torch.float64)
    for layer in layers[:-1]:
        weight, bias = layer.to_dense().double(), None if layer.bias is None else layer.bias.detach().double()
        own, spread = functional.linear(hidden, weight, bias), functional.linear(hidden.square(), weight.square()).sqrt()
        nearest = torch.maximum(nearest, (spread / own.abs()).nan_to_num(0.0).amax(1))  # 0 of 0: nothing was rounded
        hidden = torch.relu(own)
    is_far = nearest * SAFETY * torch.finfo(x.dtype).eps < 1
    if 2 * int(is_far.sum()) < len(x):
        return x
    moved = x.clone()
    moved[~is_far] = x[is_far][0]
    return moved


@exact_products()
def gate_loss(layers: Sequence[SparseLinear], loss: Tensor, x: Tensor, labels: Tensor) -> None:
    """Raise GateError unless a loss of the layers, with its graph, is their cross-entropy layer by layer in float64.

    Compared are loss and the gradient of every parameter, each to half the digits of its dtype in norm. `x` must be away from
    corners: where rounding decides on which side of ReLU's a number lies, gradients differ by a sample's share.
    """
    model = MLP(layers)
    weights = [layer.to_dense().double().requires_grad_() for layer in layers]
    biases = [None if layer.bias is None else layer.bias.detach().double().requires_grad_() for layer in layers]
    hidden = x.double()
    for number, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        hidden = functional.linear(torch.relu(hidden) if number else hidden, weight, bias)
    defined = functional.cross_entropy(hidden, labels)
    expected = [defined]
    for layer, weight, bias in zip(layers, weights, biases, strict=True):
        expected.append(layer.pack(_gradient(defined, weight).to(x.dtype)))
        expected += [] if bias is None else [_gradient(defined, bias)]
    found = [loss, *torch.autograd.grad(loss, list(model.parameters()))]
    for what, own, its in zip(["loss", *(key for key, _ in model.named_parameters())], found, expected, strict=True):
        error = float((own.detach().double() - its.detach()).norm())
        allowed = math.sqrt(torch.finfo(x.dtype).eps) * float(its.detach().norm())
        require(type(layers[0]), f"{what} of the fused step", holds=error <= allowed)


def _gradient(loss: Tensor, of: Tensor) -> Tensor:
    return torch.autograd.grad(loss, of, retain_graph=True)[0]
