"""Prune and regrow: a rule is a score by which weights are kept, one by which they are grown, and a schedule."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sparse_models.asynchronous import is_asynchronous, is_captured
from sparse_models.errors import InputError
from sparse_models.masks import count_kept, highest_places, refuse_nan, top_k_mask
from sparse_models.table import Table

# weight [out, in], its gradient at every position [out, in] or None, generator -> score [out, in]
Score = Callable[[Tensor, Tensor | None, torch.Generator | None], Tensor]
# progress of the training in [0, 1] -> fraction of the kept weights to move
Schedule = Callable[[float], float]


def prune_and_regrow(
    mask: Tensor,
    keep_score: Tensor,
    grow_score: Tensor,
    drop_fraction: float,
    *,
    regrow_dropped: bool = True,
    kept: int | None = None,
) -> Tensor:
    """Return a mask [out, in] with as many kept weights as `mask`, of which a `drop_fraction` was chosen anew.

    Of the kept weights those of highest `keep_score` survive; as many as were dropped are grown by highest `grow_score`
    among all that did not survive or, without `regrow_dropped`, among those that `mask` did not keep (then no more is
    dropped than there is room for). Raises InputError for a fraction outside [0, 1], other shapes, or NaN.

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
    kept = int(mask.sum()) if kept is None else kept
    moved = kept - count_kept(kept, drop_fraction)
    if not regrow_dropped:
        moved = min(moved, mask.numel() - kept)
    if is_asynchronous(mask):
        if not is_captured(mask):
            refuse_nan(keep_score.isnan() | grow_score.isnan())
        return _without_asking(mask, keep_score, grow_score, kept - moved, moved, regrow_dropped=regrow_dropped)
    survivors = top_k_mask(keep_score, kept - moved, among=mask)
    grown = top_k_mask(grow_score, moved, among=~survivors if regrow_dropped else ~mask)
    return survivors | grown


def _without_asking(
    mask: Tensor, keep_score: Tensor, grow_score: Tensor, surviving: int, growing: int, *, regrow_dropped: bool
) -> Tensor:
    """Return the next mask as a host would choose it, by indices whose number is known; on a CPU it takes longer."""
    chosen = torch.zeros_like(mask, memory_format=torch.contiguous_format)
    chosen.view(-1).index_fill_(0, highest_places(keep_score, surviving, ~mask), True)  # noqa: FBT003  # the value filled in
    taken = chosen if regrow_dropped else mask
    chosen.view(-1).index_fill_(0, highest_places(grow_score, growing, taken), True)  # noqa: FBT003
    return chosen


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
    ) -> Tensor:
        """Return the next mask [out, in] from mask, weight and gradient at every position, all [out, in].

        `kept` is the number of kept weights, where it is known; with a generator on a CPU, random scores for a GPU are drawn
        there and copied. Raises InputError when the rule needs a gradient and gets none, and as `prune_and_regrow` does.
        """
        if self.needs_gradient and grad is None:
            raise InputError(f"{self.name}: expected the gradient of every weight, got None; collect it by `dense_gradients`")
        return prune_and_regrow(
            mask,
            self.keep_score(weight, grad, generator),
            self.grow_score(weight, grad, generator),
            drop_fraction,
            regrow_dropped=self.regrow_dropped,
            kept=kept,
        )


UPDATES: Table[Update] = Table("update rule")


def register_update(update: Update) -> Update:
    """Enter an update rule in UPDATES under its own name and return it; raises InputError if the name is taken."""
    UPDATES.enter(update.name, update)
    return update
