"""MEST with elastic mutation and a soft memory bound (Yuan et al. 2021, arXiv:2110.14032): grow at random, drop later.

At each update those weights go that are least by |weight| + LAMBDA |gradient|, until as many are left as the sparsity says, and
some more than that are grown at random: they have until the next update to show what they are worth. No other gradients are
looked at than those of kept weights. What is grown is half of what is kept, from 56 % of the steps on a quarter, and from 75 %
on nothing, as the authors' script for 90 % sparsity has it. LAMBDA is this package's choice.
"""

import torch
from torch import Tensor

from sparse_models.updates._rule import Update, register_update
from sparse_models.updates._scores import uniform_random

LAMBDA = 0.01


def _importance(weight: Tensor, grad: Tensor | None, generator: torch.Generator | None) -> Tensor:  # noqa: ARG001
    assert grad is not None
    return weight.abs() + LAMBDA * grad.abs()


def _extra(progress: float) -> float:
    """Return how many weights are kept past the bound, as a fraction of it."""
    return 0.5 if progress < 0.5625 else 0.25 if progress < 0.75 else 0.0


def _drop_fraction(progress: float) -> float:
    """Return of how many of all weights, those past the bound included, others take the place."""
    return _extra(progress) / (1 + _extra(progress))


def _sparsity(final: float, progress: float) -> float:
    return max(0.0, 1 - (1 - final) * (1 + _extra(progress))) if _extra(progress) else final


MEST = register_update(
    Update(
        "mest",
        _importance,
        uniform_random,
        _drop_fraction,
        gradient="kept",
        sparsity=_sparsity,
        conserves=False,
        is_default=False,
    )
)
