"""From a model to what is timed of it: each operation as a function without arguments."""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from bench.works.problems import as_layout, labels_of
from sparse_models.models import MLP
from sparse_models.testing import Problem
from sparse_models.training import FusedStep, optimizer_for

TURNS = 16  # inputs with zeros that a forward pass takes in turns


def operation(op: str, model: MLP, parts: list[Problem], layout: str) -> Callable[[], object]:
    """Return what is timed: `op` of `model` on inputs and output gradients in a layout.

    A single layer stands for one inside a network, so it computes its input gradient; the first layer of an MLP does not.
    """
    return OPERATIONS[op](model, parts, layout)


def _inputs(parts: list[Problem], layout: str) -> Tensor:
    return as_layout(parts[0].x, layout).detach().requires_grad_(len(parts) == 1)


def _output_grad(parts: list[Problem], layout: str) -> Tensor:
    return as_layout(parts[-1].output_grad, layout)


def _forward(model: MLP, parts: list[Problem], layout: str) -> Callable[[], object]:
    """Inference: no graph is built, and layers may hold their weights in whatever form they multiply them fastest."""
    model.eval()
    network, x = _network(model), _inputs(parts, layout)

    def forward() -> Tensor:
        with torch.no_grad():
            return network(x)  # type: ignore[no-any-return]  # Module.__call__ is untyped

    if bool(x.all()):
        return forward
    turns = itertools.cycle(_moved(x, layout))

    def forward_of_another() -> Tensor:
        with torch.no_grad():
            return network(next(turns))  # type: ignore[no-any-return]

    return forward_of_another


def _moved(x: Tensor, layout: str) -> list[Tensor]:
    """Return inputs [batch, in] with zeros elsewhere in each: what one call skips, and caches may not hold, another reads."""
    step = -(-x.shape[1] // TURNS)
    return [as_layout(x.roll(places, 1), layout).detach() for places in range(0, x.shape[1], step)]


def _training_forward(model: MLP, parts: list[Problem], layout: str) -> Callable[[], object]:
    """The forward pass with its graph."""
    network, x = _network(model), _inputs(parts, layout)
    return lambda: network(x)


def _backward(model: MLP, parts: list[Problem], layout: str) -> Callable[[], object]:
    """The gradients of weights, biases and, for a single layer, of its input."""
    x, grad = _inputs(parts, layout), _output_grad(parts, layout)
    output = _network(model)(x)
    inputs = [tensor for tensor in (x, *model.parameters()) if tensor.requires_grad]
    return lambda: torch.autograd.grad(output, inputs, grad, retain_graph=True)


def _step(model: MLP, parts: list[Problem], layout: str) -> Callable[[], object]:
    """Forward, backward from a given output gradient, and Adam."""
    network, x, grad = _network(model), _inputs(parts, layout), _output_grad(parts, layout)
    optimizer = optimizer_of(model)

    def step() -> None:
        optimizer.zero_grad()
        x.grad = None
        network(x).backward(grad)
        optimizer.step()

    return step


def _network(model: MLP) -> torch.nn.Module:
    """Return a single layer itself: the container around it would add the same microseconds to both arms."""
    layers = list(model)
    return layers[0] if len(layers) == 1 else model


def _input_gradient(model: MLP, parts: list[Problem], layout: str) -> Callable[[], object]:
    """Every input gradient of a step, ReLU's included; weights that ask for none are given none."""
    model.requires_grad_(requires_grad=False)
    x = as_layout(parts[0].x, layout)
    first, *rest = model
    start = (x if not rest else first(x)).detach().requires_grad_()
    output = first(start) if not rest else MLP(rest)(torch.relu(start))
    grad = _output_grad(parts, layout)
    return lambda: torch.autograd.grad(output, start, grad, retain_graph=True)


def _weight_gradient(model: MLP, parts: list[Problem], layout: str) -> Callable[[], object]:
    """The gradients of all weights and biases, layer by layer, from inputs that ask for none."""
    layers = list(model)
    outputs = [layer(as_layout(part.x, layout)) for layer, part in zip(layers, parts, strict=True)]
    grads = [as_layout(part.output_grad, layout) for part in parts]

    def gradients() -> list[tuple[Tensor, ...]]:
        return [
            torch.autograd.grad(output, list(layer.parameters()), grad, retain_graph=True)
            for layer, output, grad in zip(layers, outputs, grads, strict=True)
        ]

    return gradients


def _training_step(model: MLP, parts: list[Problem], layout: str) -> Callable[[], object]:
    """A step of the one training loop, on labels drawn at random: in one call of a kernel where the layers have one."""
    x, labels, step = as_layout(parts[0].x, layout), labels_of(parts), FusedStep(model, optimizer_of(model))
    return lambda: step(x, labels)


def _optimizer_step(model: MLP, parts: list[Problem], layout: str) -> Callable[[], object]:
    """The optimizer alone, on the gradients of one backward pass."""
    optimizer = optimizer_of(model)
    _network(model)(as_layout(parts[0].x, layout)).backward(_output_grad(parts, layout))
    return optimizer.step


def optimizer_of(model: MLP) -> torch.optim.Optimizer:
    """Return the optimizer of every timed step: Adam, fused."""
    # So small a learning rate that thousands of steps on one gradient leave the weights in the range they came from.
    return optimizer_for("adam", model.parameters(), 1e-6)


OPERATIONS = {
    "forward": _forward,
    "backward": _backward,
    "step": _step,
    "training_step": _training_step,
    "training_forward": _training_forward,
    "input_gradient": _input_gradient,
    "weight_gradient": _weight_gradient,
    "optimizer": _optimizer_step,
}
