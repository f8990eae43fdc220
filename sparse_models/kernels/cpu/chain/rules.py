"""Optimizers as kernels have them: from a group's settings to a few numbers, and from a gradient to the next values."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from sparse_models.kernels.cpu._emit import Emitter

# From settings and the number of the step, from 1 on, to what the kernel computes with.
Numbers = Callable[[Mapping[str, Any], int], tuple[float, ...]]
# From these numbers, values, their gradient and the optimizer's own, all vectors, to the next values and the next of its own.
Emitted = Callable[[Emitter, Sequence[Any], Any, Any, Sequence[Any]], tuple[Any, list[Any]]]


class Rule(NamedTuple):
    """An optimizer: what it keeps of each parameter, the settings that it may have, and what it does."""

    moments: tuple[str, ...]  # by their names in the optimizer's state
    steps: str | None  # the name of their number there, if it keeps one
    settings: tuple[str, ...]  # that numbers are made from
    on: tuple[str, ...]  # without which the optimizer does something else
    off: tuple[str, ...]  # with which it does
    width: int  # of numbers
    numbers: Numbers
    emitted: Emitted

    def knows(self, settings: Mapping[str, Any]) -> bool:
        """Tell whether the kernel does what a group's settings ask for."""
        plain = all(isinstance(settings[name], int | float | tuple) for name in self.settings)
        return plain and all(settings[name] for name in self.on) and not any(settings[name] for name in self.off)


def _adam_numbers(settings: Mapping[str, Any], step: int) -> tuple[float, ...]:
    first, second = settings["betas"]
    rate, decay = settings["lr"], settings["weight_decay"]
    is_decoupled = settings["decoupled_weight_decay"]
    return (
        1 - first,
        1 - second,
        0.0 if is_decoupled else decay,
        1 - rate * decay if is_decoupled else 1.0,
        -rate / (1 - first**step),
        1 / math.sqrt(1 - second**step),
        settings["eps"],
    )


def _adam(emit: Emitter, numbers: Sequence[Any], value: Any, gradient: Any, moments: Sequence[Any]) -> tuple[Any, list[Any]]:
    """Adam (Kingma and Ba 2015, arXiv:1412.6980), weight decay as in its gradient or decoupled (arXiv:1711.05101)."""
    first_share, second_share, penalty, kept, rate, correction, epsilon = numbers
    builder, (first, second) = emit.builder, moments
    gradient = emit.multiply_add(penalty, value, gradient)
    first = emit.multiply_add(first_share, builder.fsub(gradient, first), first)
    second = emit.multiply_add(second_share, builder.fsub(builder.fmul(gradient, gradient), second), second)
    scale = emit.multiply_add(emit.each("sqrt", second), correction, epsilon)
    step = builder.fdiv(builder.fmul(rate, first), scale)
    return emit.multiply_add(value, kept, step), [first, second]


def _sgd_numbers(settings: Mapping[str, Any], step: int) -> tuple[float, ...]:  # noqa: ARG001
    momentum = settings["momentum"]
    own, kept = (1.0, momentum) if settings["nesterov"] else (0.0, 1.0)
    return settings["weight_decay"], momentum, 1 - settings["dampening"], own, kept, -settings["lr"]


def _sgd(emit: Emitter, numbers: Sequence[Any], value: Any, gradient: Any, moments: Sequence[Any]) -> tuple[Any, list[Any]]:
    """Gradient descent with momentum, as PyTorch has it, Nesterov's or not."""
    penalty, momentum, fresh, own, kept, rate = numbers
    builder, [moment] = emit.builder, moments
    gradient = emit.multiply_add(penalty, value, gradient)
    moment = emit.multiply_add(momentum, moment, builder.fmul(fresh, gradient))
    step = emit.multiply_add(kept, moment, builder.fmul(own, gradient))
    return emit.multiply_add(rate, step, value), [moment]


_NEVER = ("maximize", "differentiable")
ADAM = Rule(
    ("exp_avg", "exp_avg_sq"),
    "step",
    ("lr", "betas", "eps", "weight_decay", "decoupled_weight_decay"),
    (),
    ("amsgrad", "capturable", *_NEVER),
    7,
    _adam_numbers,
    _adam,
)
SGD = Rule(
    ("momentum_buffer",),
    None,
    ("lr", "momentum", "dampening", "weight_decay", "nesterov"),
    ("momentum",),
    _NEVER,
    6,
    _sgd_numbers,
    _sgd,
)
RULES: dict[type[torch.optim.Optimizer], Rule] = {torch.optim.Adam: ADAM, torch.optim.AdamW: ADAM, torch.optim.SGD: SGD}
