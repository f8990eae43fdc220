"""A case of a network of the user's in, what is timed of it out: the whole of it dense, or with its linear layers sparse."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from bench.cases import Case
from bench.grids import stored
from bench.models import pruned
from bench.models.layers import inspected, output_of
from bench.models.loading import Example, load
from bench.models.selected import masks_of
from bench.shapes import Shape
from bench.works.replays import Work
from sparse_models.layers import LAYERS
from sparse_models.linear import parameter_of
from sparse_models.sparsification import sparsify
from sparse_models.sparsification.choice import CRITERIA, choose
from sparse_models.training import optimizer_for

_Function = TypeVar("_Function")
EAGER = "eager"  # the variant's name: as the user's code runs
LEARNING_RATE = 1e-6  # so that thousands of steps on one batch leave the weights in the range they came from


def example_of(case: Case) -> Example:
    """Return a copy of the case's network and of its example batch, on its device, in its dtype."""
    own = pruned.example_of(case.data, Shape.parse(case.shape).batch) if case.op == "pruned" else load(case.data)
    return own.placed(case.device, getattr(torch, stored(case.dtype)))


def chosen_masks(case: Case, module: nn.Module) -> dict[str, Tensor]:
    """Return by name the masks [out, in] of the network's layers: those given, or the largest weights of each layer."""
    if case.model == "dense":
        return {}
    if given := masks_of(case.data, case.distribution):
        return {name: mask.to(case.device) for name, mask in given.items()}
    names = [layer.name for layer in inspected(case.data).sparse]
    scores = [CRITERIA["magnitude"].score(parameter_of(module.get_submodule(name)), None) for name in names]
    pattern, count = LAYERS[case.layer].pattern, len(names)
    return dict(zip(names, choose(scores, [pattern] * count, [case.sparsity] * count), strict=True))


def sparsified(module: nn.Module, masks: Mapping[str, Tensor], layer: str) -> nn.Module:
    """Exchange the layers that have a mask, in place, for those of `layer`, a name in LAYERS, and return the module."""
    return sparsify(module, layer, masks=masks) if masks else module


def masked(module: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
    """Set the weights outside the masks to 0, in place, and return the module: what the sparse one must agree with."""
    with torch.no_grad():
        for name, mask in masks.items():
            parameter_of(module.get_submodule(name)).mul_(mask)
    return module


def bytes_of(module: nn.Module) -> int:
    """Return the bytes of a network's parameters and buffers, each counted once."""
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))


def output_gradient(output: Tensor) -> Tensor:
    """Return the gradient of the output from which every training step goes back, whatever a network puts out: at random.

    It is the same for outputs of one shape. Losses that any output has, as the mean of its squares, have no gradient where a
    layer normalises the output.
    """
    drawn = torch.randn(output.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float32)
    return drawn.to(output.device, output.dtype)


def as_it_is(function: _Function) -> _Function:
    """Return a function as it is, where another way compiles it."""
    return function


def model_work(op: str, example: Example, run_as: Callable[[Any], Any] = as_it_is) -> Work:
    """Return `op` of a network on its example batch as a function without arguments; `run_as` may compile the network."""
    return OPERATIONS[op](example.module, example.batch, run_as)


def _forward(module: nn.Module, batch: tuple[Tensor, ...], run_as: Callable[..., Any]) -> Work:
    """A forward pass in eval mode, without a graph."""
    forward = run_as(module.eval())

    def inference() -> object:
        with torch.no_grad():
            return forward(*batch)

    return inference


def _step(module: nn.Module, batch: tuple[Tensor, ...], run_as: Callable[..., Any]) -> Work:
    """A training step: forward in train mode, backward from `output_gradient`, Adam on every parameter that is not frozen."""
    forward = run_as(module.train())
    optimizer = optimizer_for("adam", (one for one in module.parameters() if one.requires_grad), LEARNING_RATE)
    with torch.no_grad():
        gradient = output_gradient(output_of(module(*batch)))

    def step() -> None:
        optimizer.zero_grad()
        output_of(forward(*batch)).backward(gradient)
        optimizer.step()

    return step


OPERATIONS: dict[str, Callable[[nn.Module, tuple[Tensor, ...], Callable[..., Any]], Work]] = {
    "model": _forward,
    "model_step": _step,
    "pruned": _forward,
}
