"""What is kept or dropped together, and among how many of it a number is fixed: units and groups of a mask."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sparse_models.kernels.asynchronous import is_asynchronous

Unit = tuple[int, int]  # rows and columns of a block of weights
# Among which units of a row a fixed number is kept: all of them, or each so many that follow one another.
Group = int
ROW: Group = -1
PIECE, PIECES = 2**16, 64  # scores that are ranked at a time, at least, and into how many pieces at most


def divides(unit: Unit, shape: tuple[int, int] | torch.Size) -> bool:
    """Tell whether a weight of a shape [out, in] consists of whole units."""
    return shape[0] % unit[0] == 0 and shape[1] % unit[1] == 0


def _by_unit(matrix: Tensor, unit: Unit, reduced: Callable[[Tensor, Any], Tensor]) -> Tensor:
    """Return what each unit of a matrix [out, in] is reduced to [unit rows, unit columns]; no copy of the matrix is made.

    On a CPU rows of a unit come before its columns: whole vectors of a row then go into others, which is many times as fast.
    """
    if is_asynchronous(matrix) and divides(unit, matrix.shape):  # one kernel
        return reduced(matrix.unflatten(1, (-1, unit[1])).unflatten(0, (-1, unit[0])), (1, 3))
    return _along(1, _along(0, matrix, unit[0], reduced), unit[1], reduced)


def _along(dim: int, matrix: Tensor, of: int, reduced: Callable[[Tensor, Any], Tensor]) -> Tensor:
    """Return what so many rows (or columns) that follow one another are reduced to, and what is left at the end."""
    if of == 1:
        return matrix
    left = matrix.shape[dim] % of
    parts = zip(matrix.split([matrix.shape[dim] - left, left], dim), (of, left), strict=True)
    found = [reduced(part.unflatten(dim, (-1, size)), dim + 1) for part, size in parts if part.shape[dim]]
    return found[0] if len(found) == 1 else torch.cat(found, dim)


def units_of(mask: Tensor, unit: Unit) -> Tensor:
    """Return which units [unit rows, unit columns] a mask [out, in] keeps any weight of."""
    # As bytes: an `any` of bools goes through them one by one.
    return mask if unit == (1, 1) else _by_unit(mask.view(torch.uint8), unit, torch.amax).view(torch.bool)


def are_whole(mask: Tensor, unit: Unit) -> bool:
    """Tell whether a mask [out, in] keeps the whole of each unit that it keeps any weight of."""
    return torch.equal(units_of(mask, unit), _by_unit(mask.view(torch.uint8), unit, torch.amin).view(torch.bool))


def weights_of(units: Tensor, unit: Unit, shape: torch.Size) -> Tensor:
    """Return the mask of a shape [out, in] that keeps these units [unit rows, unit columns] whole."""
    if unit == (1, 1):
        return units
    rows = units[:, :, None].expand(-1, -1, unit[1]).flatten(1)[:, : shape[1]]
    return rows[:, None].expand(-1, unit[0], -1).flatten(0, 1)[: shape[0]].contiguous()


def summed(score: Tensor, unit: Unit, among: Tensor | None = None) -> Tensor:
    """Return the sum of the scores [out, in] of each unit [unit rows, unit columns].

    Units at edges that hold fewer weights are compared with the others by how many standard deviations their sum is from what
    as many weights have on average, `among` those of a mask [out, in] if given: equal scores make them equally likely.
    """
    if unit == (1, 1):
        return score
    exact = torch.promote_types(score.dtype, torch.float32) if score.is_floating_point() else torch.float64
    sums = _by_unit(score, unit, partial(torch.sum, dtype=exact))
    if divides(unit, score.shape):
        return sums
    mean = score.mean(dtype=exact) if among is None else score[among].sum(dtype=exact) / among.sum().clamp(min=1)
    high, wide = (
        torch.full((-(-size // of),), of, device=score.device).index_fill_(0, _last(size, of, score), (size - 1) % of + 1)
        for size, of in zip(score.shape, unit, strict=True)
    )
    count = high[:, None] * wide
    return (sums - count * mean) / count.to(sums.dtype).sqrt()


def _last(size: int, of: int, where: Tensor) -> Tensor:
    """Return the place of the last of the units that so many weights fill."""
    return torch.tensor([-(-size // of) - 1], device=where.device)


def in_groups(units: Tensor, group: Group, fill: float) -> Tensor:
    """Return [rows, columns] as [rows, groups, columns of a group], with `fill` where the last group of a row has no more."""
    size = units.shape[1] if group == ROW else group
    short = -units.shape[1] % size
    padded = functional.pad(units, (0, short), value=fill) if short else units
    return padded.reshape(len(units), -1, size)


def out_of_groups(grouped: Tensor, columns: int) -> Tensor:
    """Return [rows, groups, columns of a group] as [rows, columns]: the inverse of `in_groups`."""
    return grouped.reshape(len(grouped), -1)[:, :columns].contiguous()


def in_pieces(score: Tensor, masked: Callable[[Tensor], Tensor], side: int = 1) -> Tensor:
    """Return the mask [rows, columns] that `masked` makes of a score, a few rows, a multiple of `side`, at a time.

    Ranks in groups take many times the memory of what they are of: so it is small beside a large score.
    """
    at_once = max(PIECE, score.numel() // PIECES)
    rows = max(1, at_once // score.shape[1] // side) * side
    return torch.cat([masked(part) for part in score.split(rows)])


def highest_in_groups(score: Tensor, kept: int | Tensor, group: Group, first: Tensor | None = None) -> Tensor:
    """Return the mask [rows, columns] of the `kept` highest scores of each group, a number or one for each [rows, groups].

    With `first` [rows, columns], integers, those of a higher number come before all of a lower one, whatever their score; those
    below 0 are never kept, nor is what a group lacks.
    """
    scores = in_groups(score, group, -math.inf)
    allowed = torch.zeros_like(score, dtype=torch.int8) if first is None else first.to(torch.int8)
    levels = in_groups(allowed, group, -1)
    order = scores.argsort(dim=-1, descending=True, stable=True)
    order = order.gather(-1, levels.gather(-1, order).argsort(dim=-1, descending=True, stable=True))
    places = torch.arange(order.shape[-1], device=score.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(-1, order, places)
    limit = kept[..., None] if isinstance(kept, Tensor) else kept
    return out_of_groups((rank < limit) & (levels >= 0), score.shape[1])
