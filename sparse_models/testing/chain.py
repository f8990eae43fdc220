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


def gate_chain(layers: Sequence[SparseLinear], x: Tensor, labels: Tensor, *, fused: bool = True) -> None:
    """Raise GateError unless what the layers do together, where they have a way, is what goes layer by layer in float64.

    That is their cross-entropy where they have one of their own and `fused` asks for it, or their output.
    """
    loss = layers[0].chain_cross_entropy(list(layers), x, labels) if fused else None
    if loss is None and layers[0].chain_output(layers, x) is not None:
        loss = MLP(layers).cross_entropy(x, labels)
    if loss is not None:
        gate_loss(layers, loss, x, labels)


@exact_products()
def gate_loss(layers: Sequence[SparseLinear], loss: Tensor, x: Tensor, labels: Tensor) -> None:
    """Raise GateError unless a loss of the layers, with its graph, is their cross-entropy layer by layer in float64.

    Compared are loss and the gradient of every parameter, each to half the digits of its dtype in norm: where rounding decides
    on which side of ReLU's corner a number lies, single entries may differ by a sample's share.
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
