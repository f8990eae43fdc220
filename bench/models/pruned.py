"""Networks of the suite's own, trained dense on images of digits and pruned by magnitude: masks and accuracies out.

Weights of all layers are ranked together, but for those of the last, which no mask touches (Blalock et al. 2020,
arXiv:2003.03033: a class may lose all its weights). What is kept is fine-tuned for as many epochs again at a tenth of the rate.
Nothing is chosen: rate and epochs are the same for all, and of each training the last epoch counts.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench import grids
from bench.models.loading import Example
from sparse_models.data import DATA, Data
from sparse_models.errors import InputError
from sparse_models.layers import SparseLinear
from sparse_models.linear import parameter_of
from sparse_models.masks import Pattern
from sparse_models.models import MLP
from sparse_models.sparsification import sparsify
from sparse_models.sparsification.choice import CRITERIA, choose
from sparse_models.training import ORDER_STREAM, evaluate, optimizer_for

Masks = Mapping[str, Tensor]
BATCH, LEARNING_RATE = 128, 1e-2
TUNING_RATE = LEARNING_RATE / 10


def perceptron(sizes: tuple[int, ...]) -> nn.Sequential:
    """Return an MLP with ReLU between its layers: [batch, in] -> [batch, out]."""
    layers = [[nn.Linear(*pair), nn.ReLU()] for pair in pairwise(sizes)]
    return nn.Sequential(*[part for layer in layers for part in layer][:-1])


def convolutional() -> nn.Sequential:
    """Return a net of three convolutions and two linear layers, 89,360 weights: [batch, 64] -> [batch, 10]."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(64 * 16, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


BUILD: dict[str, Callable[[], nn.Sequential]] = {
    name: convolutional if name.endswith("conv") else partial(perceptron, tuple(map(int, chain.split("x"))))
    for name, (_, chain) in grids.NETWORKS.items()
}


class Pruned(NamedTuple):
    """Test accuracies of a seed's network, dense, pruned and fine-tuned, its masks, and the network itself, fine-tuned."""

    dense: float
    pruned: float
    tuned: float
    masks: Masks
    module: nn.Module  # dense, with zeros


def example_of(name: str, batch: int, module: nn.Module | None = None) -> Example:
    """Return a network, with the weights that the first seed draws unless it is given, and as many of the test samples."""
    inputs = _data(name).test.inputs
    return Example(drawn(name, 0) if module is None else module, (inputs[torch.arange(batch) % len(inputs)],))


def pruned_layers(module: nn.Module) -> list[str]:
    """Return the names of the layers that are pruned: all that have weights but the last."""
    return [name for name, one in module.named_modules() if isinstance(one, nn.Linear | nn.Conv2d)][:-1]


def largest(module: nn.Module, pattern: Pattern, sparsity: float) -> Masks:
    """Return by name the masks [of the weight's shape] that keep the largest weights of all pruned layers together."""
    weights = {name: parameter_of(module.get_submodule(name)).detach() for name in pruned_layers(module)}
    criterion, count = CRITERIA["global"], len(weights)
    scores = [criterion.score(weight.flatten(1), None) for weight in weights.values()]
    chosen = choose(scores, [pattern] * count, [sparsity] * count, together=criterion.together)
    return {name: mask.view(weight.shape) for (name, weight), mask in zip(weights.items(), chosen, strict=True)}


def prune(name: str, pattern: Pattern, sparsity: float, seed: int, seeds: int, epochs: int) -> Pruned:
    """Return what becomes of one of so many seeds' networks that is trained, pruned and fine-tuned."""
    test, module, dense = _data(name).test, drawn(name, seed), trained(name, seed, epochs)
    module.load_state_dict(dense.state_dict())
    masks = largest(module, pattern, sparsity)
    _mask(module, masks)
    before = evaluate(module, test).accuracy
    fit(module, _data(name), epochs, TUNING_RATE, seed + seeds, masks)
    return Pruned(evaluate(dense, test).accuracy, before, evaluate(module, test).accuracy, masks, module)


def sparse_of(module: nn.Module, layer: type[SparseLinear], masks: Masks, *, at_once: bool = False) -> nn.Module:
    """Exchange the pruned layers of a network, in place, for those of `layer`, and return what infers.

    `at_once` takes the layers of a perceptron over into an MLP of this package, whose kernels go through all of them in one
    call; raises InputError for another network, and for a layer that cannot hold the last one's weights, which are all kept.
    """
    sparsify(module, layer, masks=masks)
    if not at_once:
        return module
    parts = list(module.children())
    if not all(isinstance(part, SparseLinear | nn.Linear | nn.ReLU) for part in parts) or layer.pattern.nearest(0.0) != 0:
        raise InputError(
            f"expected linear layers with ReLU between and a pattern that keeps all, got {layer.__name__} in {module}"
        )
    layers = [layer.from_linear(part) if isinstance(part, nn.Linear) else part for part in parts]
    return MLP(part for part in layers if isinstance(part, SparseLinear))


def drawn(name: str, seed: int) -> nn.Module:
    """Return a network with the weights that PyTorch draws for a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BUILD[name]()


@lru_cache(maxsize=8)  # every sparsity begins with the same
def trained(name: str, seed: int, epochs: int) -> nn.Module:
    """Return a network that is trained dense; not to be changed."""
    module = drawn(name, seed)
    fit(module, _data(name), epochs, LEARNING_RATE, seed, {})
    return module


def fit(module: nn.Module, data: Data, epochs: int, rate: float, seed: int, masks: Masks) -> None:
    """Train in place by Adam; weights outside the masks stay 0, as those do that a sparse layer does not hold."""
    optimizer = optimizer_for("adam", module.parameters(), rate)
    order = torch.Generator().manual_seed(seed + ORDER_STREAM)
    for _ in range(epochs):
        for batch in torch.randperm(len(data.train.labels), generator=order).split(BATCH):
            optimizer.zero_grad()
            functional.cross_entropy(module(data.train.inputs[batch]), data.train.labels[batch]).backward()
            optimizer.step()
            _mask(module, masks)


@torch.no_grad()
def _mask(module: nn.Module, masks: Masks) -> None:
    for name, mask in masks.items():
        parameter_of(module.get_submodule(name)).mul_(mask)


@lru_cache
def _data(name: str) -> Data:
    data, _ = grids.NETWORKS[name]
    return DATA[data]()
