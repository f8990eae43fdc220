"""A clock that goes on by what calls are said to take, for what chooses by time."""

import torch
from torch import Tensor

from sparse_models.kernels.variant import Variant


class Clock:
    """Stands for the time: a call of a variant takes the next of its seconds, or its only ones, and gives its result."""

    def __init__(self, seconds: dict[Variant, list[float]]) -> None:
        self.seconds, self.now, self.calls = seconds, 0.0, 0
        self.results = dict.fromkeys(seconds, 1.0)
        self.disturbed = 0  # of the next times that something is measured

    def call(self, variant: Variant) -> Tensor:
        own = self.seconds[variant]
        self.now += own.pop(0) if len(own) > 1 else own[0]
        self.calls += 1
        return torch.tensor([self.results[variant]])

    def was_disturbed(self, _: object) -> bool:
        self.disturbed -= 1
        return self.disturbed >= 0
