"""What is kept or dropped together, and among how many of it a number is fixed: units and groups of a mask."""

import math

import torch
from torch import Tensor
from torch.nn import functional

Unit = tuple[int, int]  # rows and columns of a block of weights
# Among which units of a row a fixed number is kept: all of them, or each so many that follow one another.
Group = int
ROW: Group = -1


def divides(unit: Unit, shape: tuple[int, int] | torch.Size) -> bool:
    """Tell whether a weight of a shape [out, in] consists of whole units."""
    return shape[0] % unit[0] == 0 and shape[1] % unit[1] == 0


def _by_unit(matrix: Tensor, unit: Unit) -> Tensor:
    """Return a matrix [out, in] as [unit rows, rows, unit columns, columns], 0 past its edges."""
    (rows, columns), (high, wide) = matrix.shape, unit
    if not divides(unit, matrix.shape):
        matrix = functional.pad(matrix, (0, -columns % wide, 0, -rows % high))
    return matrix.reshape(-(-rows // high), high, -(-columns // wide), wide)


def units_of(mask: Tensor, unit: Unit) -> Tensor:
    """Return which units [unit rows, unit columns] a mask [out, in] keeps any weight of."""
    return mask if unit == (1, 1) else _by_unit(mask, unit).any(3).any(1)


def weights_of(units: Tensor, unit: Unit, shape: torch.Size) -> Tensor:
    """Return the mask of a shape [out, in] that keeps these units [unit rows, unit columns] whole."""
    if unit == (1, 1):
        return units
    return units.repeat_interleave(unit[0], 0).repeat_interleave(unit[1], 1)[: shape[0], : shape[1]].contiguous()


def summed(score: Tensor, unit: Unit, among: Tensor | None = None) -> Tensor:
    """Return the sum of the scores [out, in] of each unit [unit rows, unit columns].

    Units at edges that hold fewer weights are compared with the others by how many standard deviations their sum is from what
    as many weights have on average, `among` those of a mask [out, in] if given: equal scores make them equally likely.
    """
    if unit == (1, 1):
        return score
    score = score if score.is_floating_point() else score.double()
    if divides(unit, score.shape):
        return _by_unit(score, unit).sum((1, 3))
    held = torch.ones_like(score) if among is None else among.to(score.dtype)
    mean = (score * held).sum() / held.sum().clamp(min=1)
    count = _by_unit(torch.ones_like(score), unit).sum((1, 3))
    return (_by_unit(score, unit).sum((1, 3)) - count * mean) / count.sqrt()


def in_groups(units: Tensor, group: Group, fill: float) -> Tensor:
    """Return [rows, columns] as [rows, groups, columns of a group], with `fill` where the last group of a row has no more."""
    size = units.shape[1] if group == ROW else group
    short = -units.shape[1] % size
    padded = functional.pad(units, (0, short), value=fill) if short else units
    return padded.reshape(len(units), -1, size)


def out_of_groups(grouped: Tensor, columns: int) -> Tensor:
    """Return [rows, groups, columns of a group] as [rows, columns]: the inverse of `in_groups`."""
    return grouped.reshape(len(grouped), -1)[:, :columns].contiguous()


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
