"""The layers of a model in, what each takes in a pass through the whole out: timed where it stands, between its neighbours."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Stopwatch:
    """Adds up the seconds of each of some layers while their model is called; `lap` gives them and starts anew.

    A layer's forward pass is that of `forward`, without hooks. In training its backward pass is added: from when the gradient
    of its output is there until those of its parameters are; of a frozen layer, until that of its input is. Of a layer that a
    model calls several times in a step, only the backward pass of the last call ends where it does.
    """

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        """Watch layers from here on, for good."""
        self._seconds, self._last = [0.0] * len(layers), [0.0] * len(layers)
        for number, layer in enumerate(layers):
            layer.forward = self._watched(layer.forward, number, layer)
            for parameter in layer.parameters():
                if parameter.requires_grad:
                    parameter.register_post_accumulate_grad_hook(lambda _, number=number: self._stop(number))

    def _watched(self, forward: Callable[..., Tensor], number: int, layer: nn.Module) -> Callable[..., Tensor]:
        is_frozen = not any(parameter.requires_grad for parameter in layer.parameters())

        def timed(x: Tensor, *others: Any) -> Tensor:
            self._start(number)
            y = forward(x, *others)
            self._stop(number)
            if torch.is_grad_enabled() and y.requires_grad:
                y.register_hook(lambda _: self._start(number))
                if is_frozen:
                    x.register_hook(lambda _: self._stop(number))
            return y

        return timed

    def _start(self, number: int) -> None:
        self._last[number] = time.perf_counter()

    def _stop(self, number: int) -> None:
        now = time.perf_counter()
        self._seconds[number] += now - self._last[number]
        self._last[number] = now

    def lap(self) -> list[float]:
        """Return the seconds of each layer since the last lap, in all passes together."""
        seconds, self._seconds = self._seconds, [0.0] * len(self._seconds)
        return seconds
