"""A mask, a score to keep and a score to grow in, the next mask out: of as many weights, or of another number."""

import math

import torch
from torch import Tensor

from sparse_models.errors import InputError, checked
from sparse_models.kernels.asynchronous import is_asynchronous, is_captured
from sparse_models.masks.patterns import UNSTRUCTURED, Pattern
from sparse_models.masks.top_k import count_kept, highest_places, refuse_nan, top_k_mask
from sparse_models.masks.units import Group, divides, highest_in_groups, in_groups, summed, units_of, weights_of


@checked
def prune_and_regrow(
    mask: Tensor,
    keep_score: Tensor,
    grow_score: Tensor,
    drop_fraction: float,
    *,
    pattern: Pattern = UNSTRUCTURED,
    regrow_dropped: bool = True,
    kept: int | None = None,
    grown: int | None = None,
) -> Tensor:
    """Return a mask [out, in] of `pattern` with as many kept units as `mask`, of which a `drop_fraction` was chosen anew.

    A unit is a weight, or the block of them that the pattern keeps or drops whole, by its summed scores. Of the kept those of
    highest `keep_score` survive; as many as were dropped are grown by highest `grow_score` among all that did not survive or,
    without `regrow_dropped`, among those that `mask` did not keep (then no more is dropped than there is room for); where the
    pattern fixes a number, as in each m of a row, each group grows as many as it lost. Raises InputError for a fraction outside
    [0, 1], other shapes, NaN, or a pattern whose masks do not move.

    `grown` weights are grown, in place of as many as were dropped, where the pattern leaves each weight free.

    `kept` is the number of kept weights, where it is known: a GPU is then asked for nothing but whether there are NaN, and
    while a CUDA graph is captured not even that: a NaN then counts as the highest score.
    """
    if not 0 <= drop_fraction <= 1:
        raise InputError(f"expected a drop fraction between 0 and 1, got {drop_fraction}; RigL and SET use 0.3")
    if not mask.shape == keep_score.shape == grow_score.shape:
        raise InputError(
            f"expected a mask and two scores of one shape, got {list(mask.shape)}, {list(keep_score.shape)} and "
            f"{list(grow_score.shape)}; pass the layer's own"
        )
    if not pattern.moves and drop_fraction > 0:
        raise InputError(f"expected a pattern whose masks move, got {pattern.name!r}; train it with a static mask")
    if grown is not None and (pattern.unit, pattern.group) != ((1, 1), None):
        raise InputError(f"expected a pattern in which each weight is free, got {pattern.name!r}; grow as many as are dropped")
    if pattern.unit == (1, 1):
        return _moved(
            mask, keep_score, grow_score, drop_fraction, pattern.group, regrow_dropped=regrow_dropped, kept=kept, grown=grown
        )
    units, keep, grow = (
        units_of(mask, pattern.unit),
        *(summed(keep_score, pattern.unit, mask), summed(grow_score, pattern.unit)),
    )
    if not divides(pattern.unit, mask.shape):
        if is_captured(mask):
            raise InputError(
                f"expected sizes that blocks of {pattern.unit} divide, to move a mask while a CUDA graph is captured, got "
                f"{list(mask.shape)}; move it outside the graph"
            )
        kept = None  # blocks at the edges hold fewer weights
    elif kept is not None:
        kept //= math.prod(pattern.unit)
    moved = _moved(units, keep, grow, drop_fraction, pattern.group, regrow_dropped=regrow_dropped, kept=kept)
    return weights_of(moved, pattern.unit, mask.shape)


def _moved(
    mask: Tensor,
    keep_score: Tensor,
    grow_score: Tensor,
    drop_fraction: float,
    group: Group | None,
    *,
    regrow_dropped: bool,
    kept: int | None,
    grown: int | None = None,
) -> Tensor:
    """Return the next mask of units [unit rows, unit columns], of whatever shape where there are no groups."""
    kept = int(mask.sum()) if kept is None else kept
    moved = kept - count_kept(kept, drop_fraction)
    if not regrow_dropped:
        moved = min(moved, mask.numel() - kept)
    grown = moved if grown is None else grown
    if is_asynchronous(mask):
        if not is_captured(mask):
            refuse_nan(keep_score.isnan() | grow_score.isnan())
        survivors = torch.zeros_like(mask, memory_format=torch.contiguous_format)
        _keep(survivors, highest_places(keep_score, kept - moved, ~mask))
        if group is None:
            _keep(survivors, highest_places(grow_score, grown, survivors if regrow_dropped else mask))
            return survivors
    else:
        survivors = top_k_mask(keep_score, kept - moved, among=mask)
        if group is None:
            return survivors | top_k_mask(grow_score, grown, among=~survivors if regrow_dropped else ~mask)
        refuse_nan(grow_score.isnan())
    lost = in_groups((mask & ~survivors).int(), group, 0).sum(-1)
    # Without room in its group, what was dropped comes back after all.
    first = (~survivors).to(torch.int8) - survivors.to(torch.int8) - (mask & ~survivors & (not regrow_dropped)).to(torch.int8)
    return survivors | highest_in_groups(grow_score, lost, group, first)


def _keep(mask: Tensor, places: Tensor) -> None:
    """Have a contiguous mask keep some places of it, by indices whose number is known: on a CPU, a host's choice is sooner."""
    mask.view(-1).index_fill_(0, places, True)  # noqa: FBT003  # the value filled in


def resized(
    mask: Tensor,
    keep_score: Tensor,
    grow_score: Tensor,
    drop_fraction: float,
    sparsity: float,
    *,
    pattern: Pattern = UNSTRUCTURED,
) -> Tensor:
    """Return a mask [out, in] of `pattern` and of a sparsity: so many units by highest scores, however many `mask` kept.

    All of them but a `drop_fraction` are those of `mask` of highest `keep_score`, or fewer where it kept fewer; the others are
    grown by highest `grow_score` among all that did not survive. Where nothing is to be dropped nothing is grown either. Raises
    InputError as `prune_and_regrow` does, and for a pattern that fixes the number.
    """
    if not (pattern.moves and pattern.is_free):
        raise InputError(
            f"expected a pattern of any sparsity, got {pattern.name!r}; train it with a rule that keeps its number"
        )
    if is_captured(mask):
        raise InputError("expected no CUDA graph to be captured, as the number of weights changes; move masks outside")
    surviving = 1 - (1 - sparsity) * (1 - drop_fraction)
    units, keep, grow = (
        units_of(mask, pattern.unit),
        *(summed(keep_score, pattern.unit, mask), summed(grow_score, pattern.unit)),
    )
    if pattern.group is None:
        survivors = top_k_mask(keep, min(int(units.sum()), count_kept(units.numel(), surviving)), among=units)
        missing = count_kept(units.numel(), sparsity) - int(survivors.sum())
        moved = survivors | top_k_mask(grow, missing, among=~survivors) if drop_fraction else survivors
    else:  # one number for each row
        refuse_nan(keep.isnan() | grow.isnan())
        survivors = highest_in_groups(keep, count_kept(units.shape[1], surviving), pattern.group, units.to(torch.int8) - 1)
        number = count_kept(units.shape[1], sparsity)
        moved = highest_in_groups(grow, number, pattern.group, survivors.to(torch.int8)) if drop_fraction else survivors
    return weights_of(moved, pattern.unit, mask.shape)
