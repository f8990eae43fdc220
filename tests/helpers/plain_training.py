"""Every update rule once more, slowly: dense weights times masks, masks as sets of places, and Python's own sorting."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from sparse_models.kernels.cpu.moves.numbers import define_numbers
from sparse_models.training import CHOICE_STREAM, ORDER_STREAM

Place = tuple[int, int]
Mask = set[Place]
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda owned, rate: torch.optim.SGD(owned, lr=rate, momentum=0.9, foreach=False),
    "adam": lambda owned, rate: torch.optim.Adam(owned, lr=rate, foreach=False),
    "adamw": lambda owned, rate: torch.optim.AdamW(owned, lr=rate, foreach=False),
}


class State(NamedTuple):
    """What an oracle chooses by: of each layer the mask, its size, weight and gradient [out, in], and its final sparsity."""

    masks: list[Mask]
    sizes: list[int]
    weights: list[Tensor]
    gradients: list[Tensor]
    finals: list[float]
    generator: torch.Generator


def highest(places: Mask, score: Tensor, count: int) -> Mask:
    return set(sorted(places, key=lambda place: (-float(score[place]), place))[:count])


def random_scores(weight: Tensor, generator: torch.Generator) -> Tensor:
    """A random number for each place, by two keys that the generator draws."""
    one, other = torch.randint(2**32, (2,), generator=generator).tolist()
    return define_numbers((one, other), torch.arange(weight.numel())).view(weight.shape)


def everywhere(weight: Tensor) -> Mask:
    return set(itertools.product(range(weight.shape[0]), range(weight.shape[1])))


def pruned(state: State, sparsity_by_now: Callable[[float], float]) -> list[Mask]:
    return [
        highest(mask, weight.abs(), min(len(mask), round(size * (1 - sparsity_by_now(final)))))
        for mask, size, weight, final in zip(state.masks, state.sizes, state.weights, state.finals, strict=True)
    ]


def gmp(state: State, progress: float) -> list[Mask]:
    return pruned(state, lambda final: final - final * (1 - min(1.0, progress / 0.75)) ** 3)


def prune(state: State, progress: float) -> list[Mask]:
    return pruned(state, lambda final: 0.0 if progress < 0.5 else final)


def lottery(state: State, progress: float) -> list[Mask]:
    rounds = sum(progress >= at for at in (0.2, 0.4, 0.6, 0.8))
    return pruned(state, lambda final: 1 - (1 - final) ** (rounds / 4))


def mest(state: State, progress: float) -> list[Mask]:
    extra = 0.5 if progress < 0.5625 else 0.25 if progress < 0.75 else 0.0
    chosen = []
    for mask, size, weight, gradient, final in zip(*state[:5], strict=True):
        number = min(size, round(size * (1 - final) * (1 + extra)))
        bound = round(number / (1 + extra)) if number == size else round(size * (1 - final))
        survivors = highest(mask, weight.abs() + 0.01 * gradient.abs(), bound)
        random = random_scores(weight, state.generator)
        grown = highest(everywhere(weight) - survivors, random, number - len(survivors)) if extra else set()
        chosen.append(survivors | grown)
    return chosen


def snfs(state: State, progress: float) -> list[Mask]:
    fraction = 0.25 * (1 + float(torch.cos(torch.tensor(torch.pi * progress, dtype=torch.float64))))
    survivors = [
        highest(mask, weight.abs(), round(len(mask) * (1 - fraction)))
        for mask, weight in zip(state.masks, state.weights, strict=True)
    ]
    total = sum(map(len, state.masks)) - sum(map(len, survivors))
    means = [
        sum(abs(float(gradient[place])) for place in mask) / max(1, len(mask))
        for mask, gradient in zip(state.masks, state.gradients, strict=True)
    ]
    rooms = [size - len(kept) for size, kept in zip(state.sizes, survivors, strict=True)]
    return [
        kept | highest(everywhere(gradient) - kept, gradient.abs(), count)
        for kept, gradient, count in zip(survivors, state.gradients, shared_out(total, means, rooms), strict=True)
    ]


def shared_out(total: int, means: Sequence[float], rooms: Sequence[int]) -> list[int]:
    """Fill layers in proportion to their means until each is full, then round: the largest remainders up."""
    level: list[float] = [0.0] * len(means)
    left = float(total)
    for _ in means:  # each fills one layer, or is the last
        open_layers = [layer for layer, room in enumerate(rooms) if room - level[layer] > 1e-9]
        rates = {layer: means[layer] for layer in open_layers}
        if left < 1e-9:
            break
        if not sum(rates.values()):
            rates = dict.fromkeys(open_layers, 1.0)
        # Until the first of them is full, or nothing is left.
        rate = min(left / sum(rates.values()), *((rooms[one] - level[one]) / r for one, r in rates.items() if r))
        for layer, each in rates.items():
            level[layer] += rate * each
        left -= rate * sum(rates.values())
    counts = [int(value + 1e-9) for value in level]
    order = sorted(range(len(level)), key=lambda layer: (counts[layer] - level[layer], layer))
    for layer in order[: total - sum(counts)]:
        counts[layer] += 1
    return counts


def regrown(state: State, fraction: float, score: Callable[[Tensor, Tensor], Tensor]) -> list[Mask]:
    chosen = []
    for mask, weight, gradient in zip(state.masks, state.weights, state.gradients, strict=True):
        survivors = highest(mask, weight.abs(), round(len(mask) * (1 - fraction)))
        grown = highest(everywhere(weight) - survivors, score(weight, gradient), len(mask) - len(survivors))
        chosen.append(survivors | grown)
    return chosen


def set_rule(state: State, progress: float) -> list[Mask]:
    return regrown(state, 0.3, lambda weight, _: random_scores(weight, state.generator))


def rigl(state: State, progress: float) -> list[Mask]:
    fraction = 0.15 * (1 + float(torch.cos(torch.tensor(torch.pi * progress / 0.75, dtype=torch.float64))))
    return regrown(state, fraction, lambda _, gradient: gradient.abs())


RULES: dict[str, Callable[[State, float], list[Mask]]] = {
    "gmp": gmp, "prune": prune, "lottery": lottery, "mest": mest, "snfs": snfs, "set": set_rule, "rigl": rigl,
    "static": lambda state, _: state.masks, "snip": lambda state, _: state.masks,
}  # fmt: skip


class Reached(NamedTuple):
    """What a training came to: losses [steps], and of each layer weight, mask, bias, and optimizer state by its name."""

    losses: Tensor
    weights: list[Tensor]
    masks: list[Tensor]
    biases: list[Tensor]
    state: list[dict[str, Tensor]]


class Network:
    """A network of dense weights, of which those outside of masks are held at 0."""

    def __init__(self, start: Sequence[tuple[Tensor, Tensor, Tensor]], optimizer: str, rate: float) -> None:
        self.masks = [mask.clone() for _, mask, _ in start]
        self.weights = [(weight * mask).requires_grad_() for weight, mask, _ in start]
        self.biases = [bias.clone().requires_grad_() for _, _, bias in start]
        self.optimizer = OPTIMIZERS[optimizer](self.owned, rate)

    @property
    def owned(self) -> list[Tensor]:
        return [*self.weights, *self.biases]

    def step(self, x: Tensor, labels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Take a step; return the loss before it and the gradient of every weight, kept or not."""
        used = [(weight.detach() * mask).requires_grad_() for weight, mask in zip(self.weights, self.masks, strict=True)]
        for number, (weight, bias) in enumerate(zip(used, self.biases, strict=True), 1):
            x = functional.linear(x, weight, bias)
            x = x if number == len(used) else torch.relu(x)
        loss = functional.cross_entropy(x, labels)
        found = torch.autograd.grad(loss, [*used, *self.biases])
        for weight, gradient, mask in zip(self.weights, found, self.masks, strict=False):
            weight.grad = gradient * mask
        for bias, gradient in zip(self.biases, found[len(used) :], strict=True):
            bias.grad = gradient
        self.optimizer.step()
        return loss.detach(), list(found[: len(used)])

    @torch.no_grad()
    def move(self, chosen: list[Mask]) -> None:
        """Keep other weights: those under both masks keep value and optimizer state, all others are 0."""
        for number, kept in enumerate(chosen):
            moved = torch.zeros_like(self.masks[number])
            for place in kept:
                moved[place] = True
            both, weight = self.masks[number] & moved, self.weights[number]
            for tensor in (weight, *self.slots(weight).values()):
                tensor.copy_(torch.where(both, tensor, 0.0))
            self.masks[number] = moved

    @torch.no_grad()
    def rewind(self, earlier: list[Tensor]) -> None:
        """Go back to earlier weights and biases, with an optimizer that knows nothing."""
        for tensor, value in zip(self.owned, earlier, strict=True):
            tensor.copy_(value)
        for weight, mask in zip(self.weights, self.masks, strict=True):
            weight.mul_(mask)
        self.optimizer.state.clear()

    def slots(self, weight: Tensor) -> dict[str, Tensor]:
        """The optimizer's state of a weight, where it has a number for each."""
        return {name: value for name, value in self.optimizer.state[weight].items() if value.shape == weight.shape}


def plainly_trained(
    network: Network,
    inputs: Tensor,
    labels: Tensor,
    rule: str,
    due: Sequence[float | None],
    final: float,
    batch: int,
    seed: int,
) -> Reached:
    """Train a network as `sparse_models.training.train` has to, to layers of a final sparsity."""
    choice = torch.Generator().manual_seed(seed + CHOICE_STREAM)
    sizes = [mask.numel() for mask in network.masks]
    losses: list[Tensor] = []
    average: list[Tensor] = []
    early: list[Tensor] = []
    for step, samples in zip(range(len(due)), batches(len(labels), batch, seed), strict=False):
        if not early and step >= 0.02 * len(due):
            early = [tensor.detach().clone() for tensor in network.owned]
        loss, dense = network.step(inputs[samples], labels[samples])
        losses.append(loss)
        average = [0.9 * old + 0.1 * new for old, new in zip(average, dense, strict=True)] if average else dense
        progress = due[step]
        if progress is not None:
            masks = [{(int(row), int(column)) for row, column in mask.nonzero()} for mask in network.masks]
            held = [weight.detach() for weight in network.weights]
            looked_at = average if rule == "snfs" else dense
            chosen = RULES[rule](State(masks, sizes, held, looked_at, [final] * len(sizes), choice), progress)
            network.move(chosen)
            if rule == "lottery" and [*map(len, chosen)] != [*map(len, masks)]:
                network.rewind(early)
    weights, biases = ([tensor.detach() for tensor in tensors] for tensors in (network.weights, network.biases))
    return Reached(torch.stack(losses), weights, network.masks, biases, [network.slots(weight) for weight in network.weights])


def batches(samples: int, batch: int, seed: int) -> Iterator[Tensor]:
    order = torch.Generator().manual_seed(seed + ORDER_STREAM)
    while True:
        yield from torch.randperm(samples, generator=order).split(batch)
