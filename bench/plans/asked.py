"""What is asked of a plan."""

from collections.abc import Sequence
from typing import NamedTuple

from bench.models.selected import NONE
from bench.plans.arms import Kind

BUDGET = 52.0  # with the start of the command, under a minute


class Asked(NamedTuple):
    """What is asked for: the model's name, the operation, kinds of layers, threads, seconds for all of it, and masks."""

    target: str
    op: str
    kinds: Sequence[Kind]
    threads: int
    budget: float = BUDGET
    mask: str = NONE  # a file of masks

    @property
    def source(self) -> tuple[str, str]:
        """What a model is loaded by."""
        return self.target, self.mask
