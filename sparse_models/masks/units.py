"""What is kept or dropped together, and among how many of it a number is fixed: units and groups of a mask."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Unit = tuple[int, int]  # rows and columns of a block of weights
# Among which units of a row a fixed number is kept: all of them, or each so many that follow one another.
Group = int
ROW: Group = -1
PIECE, PIECES = 2**16, 64  # scores that are ranked at a time, at least, and into how many pieces at most


def divides(unit: Unit, shape: tuple[int, int] | torch.Size) -> bool:
    """Tell whether a weight of a shape [out, in] consists of whole units."""
    return shape[0] % unit[0] == 0 and shape[1] % unit[1] == 0


def _by_unit(matrix: Tensor, unit: Unit, reduced: Callable[[Tensor, tuple[int, ...]], Tensor]) -> Tensor:
    """Return what each unit of a matrix [out, in] is reduced to [unit rows, unit columns]; no copy of the matrix is made."""
    (rows, columns), (high, wide) = matrix.shape, unit
    down, right = rows // high, columns // wide
    if divides(unit, matrix.shape):
        return reduced(matrix.reshape(down, high, right, wide), (1, 3))
    bands = zip(matrix.split([down * high, rows - down * high]), (down, 1), strict=True)
    return torch.cat([_of_band(band, units, wide, right, reduced) for band, units in bands if len(band)])


def _of_band(band: Tensor, down: int, wide: int, right: int, reduced: Callable[[Tensor, tuple[int, ...]], Tensor]) -> Tensor:
    """Return what the units of rows that are cut into `down` rows of units are reduced to."""
    cut = band.reshape(down, -1, band.shape[1])
    parts = zip(cut.split([right * wide, band.shape[1] - right * wide], 2), (right, 1), strict=True)
    return torch.cat([reduced(part.unflatten(2, (units, -1)), (1, 3)) for part, units in parts if part.shape[2]], 1)


def units_of(mask: Tensor, unit: Unit) -> Tensor:
    """Return which units [unit rows, unit columns] a mask [out, in] keeps any weight of."""
    return mask if unit == (1, 1) else _by_unit(mask, unit, torch.any)


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
    sums = _by_unit(score if score.is_floating_point() else score.double(), unit, torch.sum)
    if divides(unit, score.shape):
        return sums
    mean = score.mean() if among is None else score[among].sum() / among.sum().clamp(min=1)
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
