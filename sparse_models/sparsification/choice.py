"""Weights in, the masks that keep some of them out: by magnitude in each layer, by magnitude in all together, or at random."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sparse_models.errors import InputError
from sparse_models.masks import Pattern, count_kept, random_score, top_k_mask
from sparse_models.table import Table


class Criterion(NamedTuple):
    """By what weights are kept: their score, and whether those of all layers are ranked together."""

    score: Callable[[Tensor, torch.Generator | None], Tensor]  # weight [out, in], generator -> score [out, in]
    together: bool = False


def _magnitude(weight: Tensor, _: torch.Generator | None) -> Tensor:
    return weight.detach().abs()


def _random(weight: Tensor, generator: torch.Generator | None) -> Tensor:
    return random_score(weight.shape, generator, weight.device)


CRITERIA: Table[Criterion] = Table("criterion")
CRITERIA |= {
    "magnitude": Criterion(_magnitude),
    "global": Criterion(_magnitude, together=True),
    "random": Criterion(_random),
}


def choose(
    scores: Sequence[Tensor], patterns: Sequence[Pattern], sparsities: Sequence[float], *, together: bool = False
) -> list[Tensor]:
    """Return the masks [out, in] of layers with these scores, patterns and sparsities, which keep the highest scores.

    `together` ranks the scores of all layers, so that the sparsities say only how many are kept in all. Raises InputError for a
    sparsity that a pattern does not have, and for one whose masks no layer can choose by itself.
    """
    for pattern, sparsity in zip(patterns, sparsities, strict=True):
        if pattern.of_network is not None and sparsity > 0:
            raise InputError(f"expected a pattern that each layer can keep by itself, got {pattern.name!r}; pass masks")
    if together:
        sparsities = _by_rank(scores, sparsities)
    return [pattern.from_score(score, sparsity) for score, pattern, sparsity in zip(scores, patterns, sparsities, strict=True)]


def _by_rank(scores: Sequence[Tensor], sparsities: Sequence[float]) -> list[float]:
    """Return the sparsities at which as many weights are kept as at these, and those of highest score in all layers."""
    sizes = [score.numel() for score in scores]
    kept = sum(count_kept(size, sparsity) for size, sparsity in zip(sizes, sparsities, strict=True))
    dtype, device = scores[0].dtype, scores[0].device
    ranked = torch.cat([score.to(device, dtype).reshape(-1) for score in scores])
    return [1 - int(mask.sum()) / len(mask) for mask in top_k_mask(ranked, kept).split(sizes)]
