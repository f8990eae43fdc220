"""The gate of a fused training step: the layers of a chain one by one, in float64."""

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from sparse_models.layers import SparseLinear
from sparse_models.models import MLP
from sparse_models.testing.exact import exact_products
from sparse_models.testing.refusals import require
from sparse_models.training import FusedStep

MOMENTS = ("exp_avg", "exp_avg_sq")  # of Adam
SAFETY = 16  # times what errors of rounding add up to


def gate_chain(layers: Sequence[SparseLinear], x: Tensor, labels: Tensor, *, fused: bool = True) -> None:
    """Raise GateError unless what the layers do together, where they have a way, is what goes layer by layer in float64.

    That is their cross-entropy where they have one of their own and `fused` asks for it, and their step with an optimizer where
    a kernel takes it; and their output.
    """
    x = away_from_corners(layers, x)
    loss = layers[0].chain_cross_entropy(list(layers), x, labels) if fused else None
    if loss is None and layers[0].chain_output(layers, x) is not None:
        loss = MLP(layers).cross_entropy(x, labels)
    if loss is not None:
        gate_loss(layers, loss, x, labels)
    gate_output(layers, x)
    if fused:
        gate_step(layers, x, labels)


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
def gate_loss(
    layers: Sequence[SparseLinear], loss: Tensor, x: Tensor, labels: Tensor, computed_in: torch.dtype | None = None
) -> None:
    """Raise GateError unless a loss of the layers, with its graph, is their cross-entropy layer by layer in float64.

    Compared are loss and the gradient of every parameter, each to half the digits of its dtype in norm, or to a quarter of
    those that it was `computed_in`, fewer than those of `x`, for there rounding decides for many samples what ReLU stops.
    Otherwise `x` must be away from corners: where rounding decides that, gradients differ by a sample's share.
    """
    model = MLP(layers)
    defined, expected = _define(layers, x, labels)
    names = [key for key, _ in model.named_parameters()]
    _require_close(layers, "loss", loss, defined, defined, computed_in)
    for what, own, its in zip(names, torch.autograd.grad(loss, list(model.parameters())), expected, strict=True):
        _require_close(layers, what, own, its, its, computed_in)


@exact_products()
def gate_output(layers: Sequence[SparseLinear], x: Tensor) -> None:
    """Raise GateError unless what the layers put out without a graph, where they have a way, is their output in float64.

    Looked at are the whole batch, in either layout, and its first sample, with which something else may be done.
    """
    for part in (x, x.t().contiguous().t(), x[:1]):
        with torch.no_grad():
            found = layers[0].chain_output(list(layers), part)
        if found is not None:
            hidden = part.double()
            for number, layer in enumerate(layers):
                bias = None if layer.bias is None else layer.bias.detach().double()
                hidden = functional.linear(torch.relu(hidden) if number else hidden, layer.to_dense().double(), bias)
            _require_close(layers, "output", found, hidden, hidden)


def _define(layers: Sequence[SparseLinear], x: Tensor, labels: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return the cross-entropy layer by layer, and its gradient by every parameter, in float64."""
    weights = [layer.to_dense().double().requires_grad_() for layer in layers]
    biases = [None if layer.bias is None else layer.bias.detach().double().requires_grad_() for layer in layers]
    hidden = x.double()
    for number, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        hidden = functional.linear(torch.relu(hidden) if number else hidden, weight, bias)
    defined = functional.cross_entropy(hidden, labels)
    expected = []
    for layer, weight, bias in zip(layers, weights, biases, strict=True):
        expected.append(layer.pack(_gradient(defined, weight).to(x.dtype)).double())
        expected += [] if bias is None else [_gradient(defined, bias)]
    return defined.detach(), expected


@exact_products()
def gate_step(layers: Sequence[SparseLinear], x: Tensor, labels: Tensor) -> None:
    """Raise GateError unless a step that a kernel takes, if one does, is PyTorch's Adam by the gradients of the definition.

    Compared are the loss, and how every parameter and the optimizer's own tensors changed. The second step is looked at: the
    first makes the optimizer's state. Adam has an epsilon so large that rounding decides no sign.
    """
    model = copy.deepcopy(MLP(layers))
    parameters, names = list(model.parameters()), [key for key, _ in model.named_parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1.0, eps=1.0, fused=x.is_cpu)
    step = FusedStep(model, optimizer)
    step(x, labels)
    x = away_from_corners(list(model), x)
    defined, gradients = _define(list(model), x, labels)
    before = [parameter.detach().to(torch.float64, copy=True) for parameter in parameters]
    own = [parameter.clone().requires_grad_() for parameter in before]
    definition = torch.optim.Adam(own, lr=1.0, eps=1.0)
    for mine, parameter, gradient in zip(own, parameters, gradients, strict=True):
        state = optimizer.state[parameter]
        definition.state[mine] = {name: state[name].to(torch.float64, copy=True) for name in ("step", *MOMENTS)}
        mine.grad = gradient
    loss = step.at_once(x, labels)
    if loss is None:
        return
    definition.step()
    _require_close(layers, "loss of a step with its optimizer", loss, defined, defined)
    for what, found, its, old in zip(names, parameters, own, before, strict=True):
        _require_close(layers, f"{what} after a step with its optimizer", found, its, its - old)
        for name in ("step", *MOMENTS):
            moment, expected = optimizer.state[found][name], definition.state[its][name]
            _require_close(layers, f"{name} of {what} after a step with its optimizer", moment, expected, expected)


def _require_close(
    layers: Sequence[SparseLinear],
    what: str,
    found: Tensor,
    expected: Tensor,
    scale: Tensor,
    computed_in: torch.dtype | None = None,
) -> None:
    """Require an error of at most half the digits of the dtype beside a norm, and of what rounding of the result adds."""
    epsilon = torch.finfo(found.dtype).eps
    relative = math.sqrt(epsilon) if computed_in is None else torch.finfo(computed_in).eps ** 0.25
    error = float((found.detach().double() - expected.detach()).norm())
    allowed = relative * float(scale.detach().norm()) + epsilon * float(expected.detach().norm())
    require(type(layers[0]), f"{what} of the chain", holds=error <= allowed)


def _gradient(loss: Tensor, of: Tensor) -> Tensor:
    return torch.autograd.grad(loss, of, retain_graph=True)[0]
