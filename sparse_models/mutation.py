"""How an update rule goes through a training: when it is its turn, what it looks at, and what it does to the model."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sparse_models.kernels.asynchronous import is_asynchronous
from sparse_models.layers import SparseLinear
from sparse_models.models import MLP
from sparse_models.updates import Gradient, Moves, Update, dense_of, kept_gradients, rewind, update_masks

SMOOTHING = 0.9  # of averaged gradients, as of the momentum of most trainings
HALF = 0.5  # a final sparsity by which to tell when a schedule of sparsities changes


class Mutation:
    """An update rule in a training: what it has seen of gradients on average, and weights to go back to."""

    def __init__(
        self,
        model: MLP,
        update: Update,
        due: Sequence[float | None],
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator | None = None,
    ) -> None:
        """Take note of when the rule is due, as `updates_due` tells, and of how sparse the layers are to be in the end.

        That is as the model says or, where it says nothing, as it is now.
        """
        self.model, self.update, self.due, self.optimizer, self.generator = model, update, due, optimizer, generator
        self.last = max((step for step, progress in enumerate(due) if progress is not None), default=-1)
        self.averages, self.moves = dict[SparseLinear, Tensor](), Moves()
        self.early: list[tuple[Tensor, Tensor | None]] | None = None
        self.sparsities: list[float] | None = None
        if update.resizes:
            self.sparsities = model.sparsities or [layer.pattern.sparsity_of(layer.mask) for layer in model]

    def watched(self, step: int) -> list[SparseLinear]:
        """Return the layers of which the rule looks at the gradient of every weight at a step, the next one to be taken."""
        if self.update.rewind_to is not None and self.early is None and step >= self.update.rewind_to * len(self.due):
            self.early = [
                (layer.to_dense(), None if layer.bias is None else layer.bias.detach().clone()) for layer in self.model
            ]
        looks = step <= self.last if self.update.gradient == "averaged" else self.due[step] is not None
        return list(self.model) if looks and self.update.needs_gradient else []

    def reads(self, step: int) -> bool:
        """Tell whether the rule looks after a step at the gradients of the weights that there are, which a fused step drops."""
        return self.update.gradient == "kept" and self.due[step] is not None

    def follow(self, step: int, gradients: Mapping[SparseLinear, Gradient]) -> None:
        """After a step, with the gradients [out, in] of the layers watched, move the masks where that is due."""
        progress = self.due[step]
        if self.update.gradient == "averaged":
            for layer, gradient in gradients.items():
                known, dense = self.averages.get(layer), dense_of(gradient)
                self.averages[layer] = dense if known is None else known.lerp_(dense, 1 - SMOOTHING)
            gradients = self.averages
        if progress is None:
            return
        if self.update.gradient == "kept":
            gradients = kept_gradients(self.model)
        before = [layer.nnz_as_set for layer in self.model] if self.early else []
        update_masks(
            self.model,
            self.update,
            self.update.drop_fraction(progress),
            optimizer=self.optimizer,
            gradients=gradients,
            generator=self.generator,
            in_place=None if is_asynchronous(next(self.model.parameters())) else False,  # a GPU's step may be captured
            moves=self.moves,
            sparsities=self.sparsities and [self.update.sparsity_at(final, progress) for final in self.sparsities],
        )
        if self.early and before != [layer.nnz_as_set for layer in self.model]:
            rewind(self.model, self.early, self.optimizer)


def updates_due(steps: int, interval: int, update: Update) -> list[float | None]:
    """Return for each step of a training how far it is, in (0, 1], where `update` is to choose masks after it, else None.

    It is every `interval` steps, while weights move or the sparsity changes, and once at the step with which the sparsity
    has come to the final one, so that no interval is too long for that.
    """
    due: list[float | None] = []
    at = update.sparsity_at(HALF, 0.0)
    for step in range(1, steps + 1):
        progress = step / steps
        now = update.sparsity_at(HALF, progress)
        # Schedules of what moves end before 1, so nothing is grown after the last step that would never be trained.
        changes = now != at or update.drop_fraction(progress) > 0
        is_due = (changes and step % interval == 0) or (now == HALF != at)
        at = now if is_due else at
        due.append(progress if is_due else None)
    return due
