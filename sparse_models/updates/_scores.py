"""Scores that several rules share: (weight [out, in], gradient [out, in] or None, generator) -> score [out, in]."""

import torch
from torch import Tensor

from sparse_models.masks import random_score


def magnitude(weight: Tensor, grad: Tensor | None, generator: torch.Generator | None) -> Tensor:
    """Score by |weight|."""
    return weight.abs()


def uniform_random(weight: Tensor, grad: Tensor | None, generator: torch.Generator | None) -> Tensor:
    """Score uniformly at random."""
    return random_score(weight.shape, generator, weight.device)


def gradient_magnitude(weight: Tensor, grad: Tensor | None, generator: torch.Generator | None) -> Tensor:
    """Score by |gradient|; the gradient must be there."""
    assert grad is not None
    return grad.abs()
