"""A parameter and the one that takes its place in: the optimizer's groups and state follow."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sparse_models.errors import InputError


def check_state(optimizer: torch.optim.Optimizer, old: nn.Parameter, name: str) -> None:
    """Raise InputError where what an optimizer holds for a parameter is not one number each, or one for all weights."""
    for key, held in optimizer.state.get(old, {}).items():
        fits = held.shape == old.shape or held.numel() == 1 if isinstance(held, Tensor) else not isinstance(held, list | dict)
        if not fits:
            raise InputError(
                f"{name}: expected optimizer state by weight, got {key!r} of {type(optimizer).__name__}, which is not; make a "
                "new optimizer after"
            )


def exchange(
    optimizer: torch.optim.Optimizer, old: nn.Parameter, new: nn.Parameter, converted: Callable[[Tensor], Tensor]
) -> None:
    """Let `new` take the place of `old` in its group, and have state of the shape of `old` converted to that of `new`."""
    for group in optimizer.param_groups:
        group["params"] = [new if parameter is old else parameter for parameter in group["params"]]
    if old in optimizer.state:
        state = optimizer.state.pop(old)
        optimizer.state[new] = {
            key: converted(held) if isinstance(held, Tensor) and held.shape == old.shape else held
            for key, held in state.items()
        }
