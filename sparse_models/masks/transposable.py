"""Masks that are 2:4 along rows and along columns, so that a weight and its transpose both have the structure."""

import itertools
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from sparse_models.masks.patterns import TWO_FOUR, Pattern, check_only
from sparse_models.masks.top_k import refuse_nan
from sparse_models.masks.units import in_pieces

SIDE = 4  # of a tile, each of whose rows and columns keeps 2


@cache
def _choices(device: torch.device) -> Tensor:
    """Return the 90 masks of a tile [90, 16] of which each row and each column keeps 2."""
    pairs = itertools.combinations(range(SIDE), 2)
    rows = [torch.tensor([place in kept for place in range(SIDE)], device=device) for kept in pairs]
    tiles = torch.stack([torch.stack(tile) for tile in itertools.product(rows, repeat=SIDE)])
    return tiles[(tiles.sum(1) == 2).all(1)].flatten(1)


def _from_score(score: Tensor, sparsity: float) -> Tensor:
    """Return, for each tile, the mask of the highest sum of scores: the best of the 90, not a greedy one."""
    check_only(sparsity, 0.5, "2:4 both ways")
    refuse_nan(score.isnan())
    return in_pieces(score, _best, SIDE)


def _best(score: Tensor) -> Tensor:
    outputs, inputs = score.shape
    sums = functional.pad(score.to(torch.promote_types(score.dtype, torch.float32)), (0, -inputs % SIDE, 0, -outputs % SIDE))
    rows, columns = sums.shape[0] // SIDE, sums.shape[1] // SIDE
    tiles = sums.view(rows, SIDE, columns, SIDE).transpose(1, 2).reshape(-1, SIDE * SIDE)
    choices = _choices(score.device)
    best = (tiles @ choices.t().to(tiles.dtype)).argmax(1)
    mask = choices[best].view(rows, columns, SIDE, SIDE).transpose(1, 2).reshape(sums.shape)
    return mask[:outputs, :inputs].contiguous()


def _accepts(mask: Tensor) -> bool:
    return TWO_FOUR.accepts(mask) and TWO_FOUR.accepts(mask.t())


TWO_FOUR_TRANSPOSABLE = Pattern("2:4 transposable", _from_score, _accepts, group=SIDE, sparsities=(0.5,), moves=False)
