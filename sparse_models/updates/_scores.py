"""Scores that several rules share: (weight [out, in], gradient [out, in] or None, generator) -> score [out, in]."""

import torch
from torch import Tensor

from sparse_models.kernels.cpu.moves.numbers import drawn_keys, numbers
from sparse_models.masks import random_score


def magnitude(weight: Tensor, grad: Tensor | None, generator: torch.Generator | None) -> Tensor:
    """Score by |weight|."""
    return weight.abs()


def uniform_random(weight: Tensor, grad: Tensor | None, generator: torch.Generator | None) -> Tensor:
    """Score uniformly at random: by numbers of places where a CPU draws, whose kernels need no copy of them."""
    drawn_on = weight.device if generator is None else generator.device
    if drawn_on.type != "cpu":
        return random_score(weight.shape, generator, weight.device)
    drawn = numbers(drawn_keys(generator), 0, torch.empty(weight.shape, dtype=torch.int32, device=drawn_on))
    return drawn.to(weight.device, torch.float64)


def none_grown(weight: Tensor, grad: Tensor | None, generator: torch.Generator | None) -> Tensor:
    """Score all alike: for rules that grow nothing."""
    return torch.zeros_like(weight)


def gradient_magnitude(weight: Tensor, grad: Tensor | None, generator: torch.Generator | None) -> Tensor:
    """Score by |gradient|; the gradient must be there."""
    assert grad is not None
    return grad.abs()


def sensitivity(weight: Tensor, grad: Tensor | None, generator: torch.Generator | None) -> Tensor:
    """Score by |weight * gradient|, about what the loss changes by where a weight goes; the gradient must be there."""
    assert grad is not None
    return (weight * grad).abs()
