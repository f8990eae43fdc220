"""A trained model, its update rule and its settings in, the FLOPs of the training out: those needed, and those executed."""

import copy
from typing import NamedTuple

from sparse_models.costs import counted_training_flops, executed_flops, size
from sparse_models.masks import random_score
from sparse_models.models import MLP
from sparse_models.mutation import updates_due
from sparse_models.training import Settings, steps_of
from sparse_models.updates import Update


class TrainingFlops(NamedTuple):
    """FLOPs of a whole training."""

    flops_counted: float
    flops_executed: float


def training_flops(model: MLP, update: Update, samples: int, settings: Settings) -> TrainingFlops:
    """Return the FLOPs of a training on so many samples an epoch.

    Where the number of weights follows a schedule, each stretch between mask updates has that of random masks of its sparsity.
    """
    due = updates_due(steps_of(samples, settings), settings.update_interval, update)
    batches = [min(settings.batch, samples - start) for start in range(0, samples, settings.batch)] * settings.epochs
    # At each update, or at each step, one dense weight gradient is executed beside.
    last = max((step for step, progress in enumerate(due) if progress is not None), default=-1)
    looked_at = {
        "averaged": sum(batches[: last + 1]),
        "every": sum(batch for batch, progress in zip(batches, due, strict=True) if progress is not None),
    }.get(update.gradient, 0)
    interval = 0 if update.gradient == "averaged" else settings.update_interval
    counted, executed = 0.0, 2.0 * size(model).weights * looked_at
    for layers, seen in _stretches(model, update, due, batches):
        total = size(layers)
        counted += counted_training_flops(total.nnz, total.weights, seen, interval, needs_gradient=update.needs_gradient)
        executed += executed_flops(list(layers), seen, "step", input_gradient=False)
    return TrainingFlops(counted, executed)


def _stretches(model: MLP, update: Update, due: list[float | None], batches: list[int]) -> list[tuple[MLP, int]]:
    """Return the model as sparse as it was between mask updates, and the number of samples that it saw then."""
    if not update.resizes:
        return [(model, sum(batches))]
    sparsities = model.sparsities or [layer.pattern.sparsity_of(layer.mask) for layer in model]
    stretches, since, seen = [], 0.0, 0
    for progress, batch in zip([*due, 1.0], [*batches, 0], strict=True):
        seen += batch
        if progress is not None:
            stretches.append((_as_sparse(model, [update.sparsity_at(final, since) for final in sparsities]), seen))
            since, seen = progress, 0
    return [(layers, count) for layers, count in stretches if count]


def _as_sparse(model: MLP, sparsities: list[float]) -> MLP:
    made = copy.deepcopy(model)
    layers = list(made)
    scores = [random_score((layer.out_features, layer.in_features), device=layer.values.device) for layer in layers]
    for layer, mask in zip(layers, layers[0].pattern.masks(scores, sparsities), strict=True):
        layer.set_mask(mask)
    return made
