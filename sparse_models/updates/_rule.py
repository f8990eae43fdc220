"""Prune and regrow: a rule is a score by which weights are kept, one by which they are grown, and a schedule."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sparse_models.asynchronous import is_asynchronous, is_captured
from sparse_models.errors import InputError
from sparse_models.masks import UNSTRUCTURED, Pattern, count_kept, highest_places, refuse_nan, top_k_mask
from sparse_models.masks.units import Group, divides, highest_in_groups, in_groups, summed, units_of, weights_of
from sparse_models.table import Table

# weight [out, in], its gradient at every position [out, in] or None, generator -> score [out, in]
Score = Callable[[Tensor, Tensor | None, torch.Generator | None], Tensor]
# mask, score to keep and score to grow [out, in], drop fraction, then as keywords pattern, regrow_dropped and kept -> mask
Choice = Callable[..., Tensor]
# progress of the training in [0, 1] -> fraction of the kept weights to move
Schedule = Callable[[float], float]


def prune_and_regrow(
    mask: Tensor,
    keep_score: Tensor,
    grow_score: Tensor,
    drop_fraction: float,
    *,
    pattern: Pattern = UNSTRUCTURED,
    regrow_dropped: bool = True,
    kept: int | None = None,
) -> Tensor:
    """Return a mask [out, in] of `pattern` with as many kept units as `mask`, of which a `drop_fraction` was chosen anew.

    A unit is a weight, or the block of them that the pattern keeps or drops whole, by its summed scores. Of the kept those of
    highest `keep_score` survive; as many as were dropped are grown by highest `grow_score` among all that did not survive or,
    without `regrow_dropped`, among those that `mask` did not keep (then no more is dropped than there is room for); where the
    pattern fixes a number, as in each m of a row, each group grows as many as it lost. Raises InputError for a fraction outside
    [0, 1], other shapes, NaN, or a pattern whose masks do not move.

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
    if pattern.unit == (1, 1):
        return _moved(mask, keep_score, grow_score, drop_fraction, pattern.group, regrow_dropped=regrow_dropped, kept=kept)
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
) -> Tensor:
    """Return the next mask of units [unit rows, unit columns], of whatever shape where there are no groups."""
    kept = int(mask.sum()) if kept is None else kept
    moved = kept - count_kept(kept, drop_fraction)
    if not regrow_dropped:
        moved = min(moved, mask.numel() - kept)
    if is_asynchronous(mask):
        if not is_captured(mask):
            refuse_nan(keep_score.isnan() | grow_score.isnan())
        survivors = torch.zeros_like(mask, memory_format=torch.contiguous_format)
        _keep(survivors, highest_places(keep_score, kept - moved, ~mask))
        if group is None:
            _keep(survivors, highest_places(grow_score, moved, survivors if regrow_dropped else mask))
            return survivors
    else:
        survivors = top_k_mask(keep_score, kept - moved, among=mask)
        if group is None:
            return survivors | top_k_mask(grow_score, moved, among=~survivors if regrow_dropped else ~mask)
        refuse_nan(grow_score.isnan())
    lost = in_groups((mask & ~survivors).int(), group, 0).sum(-1)
    # Without room in its group, what was dropped comes back after all.
    first = (~survivors).to(torch.int8) - survivors.to(torch.int8) - (mask & ~survivors & (not regrow_dropped)).to(torch.int8)
    return survivors | highest_in_groups(grow_score, lost, group, first)


def _keep(mask: Tensor, places: Tensor) -> None:
    """Have a contiguous mask keep some places of it, by indices whose number is known: on a CPU, a host's choice is sooner."""
    mask.view(-1).index_fill_(0, places, True)  # noqa: FBT003  # the value filled in


def constant(fraction: float, until: float = 1.0) -> Schedule:
    """Return the schedule that moves `fraction` of the weights until a fraction `until` of the training, then none."""
    return lambda progress: fraction if progress < until else 0.0


def cosine(fraction: float, until: float) -> Schedule:
    """Return the schedule that decays from `fraction` to 0 at a fraction `until` of the training (Dettmers 2019)."""
    return lambda progress: fraction / 2 * (1 + math.cos(math.pi * progress / until)) if progress < until else 0.0


@dataclass(frozen=True)
class Update:
    """An update rule: which weights are kept, which are grown, how many move and when.

    What is dropped and grown again in the same step never left: it keeps its value and its optimizer state, which is
    what RigL's reference implementation does by default.
    """

    name: str
    keep_score: Score
    grow_score: Score
    drop_fraction: Schedule
    needs_gradient: bool = False
    regrow_dropped: bool = True
    choose: Choice = prune_and_regrow
    only: Pattern | None = None  # the one pattern whose masks it moves; None: all that move
    conserves: bool = True  # whether as many weights are kept after a move as before

    def fits(self, pattern: Pattern) -> bool:
        """Tell whether the rule is one for layers of a pattern: one that never moves a weight is for all."""
        return not self.moves or (pattern.moves and self.only in (None, pattern))

    @property
    def moves(self) -> bool:
        """Whether the rule ever moves a weight: one that never moves any at the start is static."""
        return self.drop_fraction(0.0) > 0

    def __call__(
        self,
        mask: Tensor,
        weight: Tensor,
        grad: Tensor | None,
        drop_fraction: float,
        generator: torch.Generator | None = None,
        kept: int | None = None,
        *,
        pattern: Pattern = UNSTRUCTURED,
    ) -> Tensor:
        """Return the next mask [out, in] of `pattern` from mask, weight and gradient at every position, all [out, in].

        `kept` is the number of kept weights, where it is known; with a generator on a CPU, random scores for a GPU are drawn
        there and copied. Raises InputError when the rule needs a gradient and gets none, when it is for another pattern, and as
        `prune_and_regrow` does.
        """
        if self.only is not None and self.only != pattern:
            raise InputError(
                f"{self.name}: expected masks of pattern {self.only.name!r}, got {pattern.name!r}; take another rule, or a "
                "layer of that pattern"
            )
        if self.needs_gradient and grad is None:
            raise InputError(f"{self.name}: expected the gradient of every weight, got None; collect it by `dense_gradients`")
        return self.choose(
            mask,
            self.keep_score(weight, grad, generator),
            self.grow_score(weight, grad, generator),
            drop_fraction,
            pattern=pattern,
            regrow_dropped=self.regrow_dropped,
            kept=kept,
        )


UPDATES: Table[Update] = Table("update rule")


def register_update(update: Update) -> Update:
    """Enter an update rule in UPDATES under its own name and return it; raises InputError if the name is taken."""
    UPDATES.enter(update.name, update)
    return update
