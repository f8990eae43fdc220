"""An update rule: scores by which weights are kept and grown, and schedules of how many move and of how many there are."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sparse_models.errors import InputError, checked
from sparse_models.masks import UNSTRUCTURED, Pattern
from sparse_models.masks.regrow import prune_and_regrow, resized
from sparse_models.table import Table

# weight [out, in], its gradient [out, in] or None, generator -> score [out, in]
Score = Callable[[Tensor, Tensor | None, torch.Generator | None], Tensor]
# mask, score to keep and score to grow [out, in], drop fraction, then as keywords pattern, regrow_dropped and kept -> mask
Choice = Callable[..., Tensor]
# progress of the training in [0, 1] -> fraction of the kept weights to move
Schedule = Callable[[float], float]
# a layer's sparsity at the end, progress of the training in [0, 1] -> its sparsity by then
Sparsification = Callable[[float, float], float]
# masks and gradients [out, in] of all layers, drop fraction -> how many weights each layer grows, as many as all drop
Share = Callable[[Sequence[Tensor], Sequence[Tensor], float], list[int]]
# Of which weights a rule looks at the gradient: of those kept alone, which the optimizer's step needs anyway; of every one at
# the mask updates; or of every one at every step, as an average over steps.
Gradient = Literal["none", "kept", "every", "averaged"]


def constant(fraction: float, until: float = 1.0) -> Schedule:
    """Return the schedule that moves `fraction` of the weights until a fraction `until` of the training, then none."""
    return lambda progress: fraction if progress < until else 0.0


def cosine(fraction: float, until: float) -> Schedule:
    """Return the schedule that decays from `fraction` to 0 at a fraction `until` of the training (Dettmers 2019)."""
    return lambda progress: fraction / 2 * (1 + math.cos(math.pi * progress / until)) if progress < until else 0.0


def cubic(until: float) -> Sparsification:
    """Return the schedule from dense to the final sparsity at `until`, s (1 - (1 - t / until)^3) (Zhu and Gupta 2017)."""
    return lambda final, progress: final * (1 - (1 - progress / until) ** 3) if progress < until else final


def in_rounds(count: int, until: float) -> Sparsification:
    """Return the schedule of `count` prunings, the last at `until`, each of the same fraction of the weights that are left."""

    def sparsity(final: float, progress: float) -> float:
        done = int(progress / until * count + 1e-9)  # a step that is at a round's end is not to be rounded to before it
        return 1 - (1 - final) ** (done / count) if done < count else final

    return sparsity


@dataclass(frozen=True)
class Update:
    """An update rule: which weights are kept, which are grown, how many move and when, and how many there are.

    What is dropped and grown again in the same step never left: it keeps its value and its optimizer state, which is
    what RigL's reference implementation does by default.
    """

    name: str
    keep_score: Score
    grow_score: Score
    drop_fraction: Schedule
    gradient: Gradient = "none"
    regrow_dropped: bool = True
    choose: Choice = prune_and_regrow
    only: Pattern | None = None  # the one pattern whose masks it moves; None: all that move
    conserves: bool = True  # whether as many weights of each layer are kept after a move as before
    sparsity: Sparsification | None = None  # None: the final one, all the time
    share: Share | None = None  # None: each layer grows as many weights as it drops
    initial_score: Score | None = None  # by which the first masks are chosen, from all layers' weights; None: at random
    rewind_to: float | None = None  # progress to whose weights a training goes back where it pruned; None: it goes on
    is_default: bool = True  # whether the default grid has it; else it is there when asked for by name, and in the full grid

    def fits(self, pattern: Pattern) -> bool:
        """Tell whether the rule is one for layers of a pattern: one that never changes a mask is for all."""
        if not (self.moves or self.resizes):
            return True
        return pattern.moves and self.only in (None, pattern) and (pattern.is_free or not self.resizes)

    @property
    def moves(self) -> bool:
        """Whether the rule ever moves a weight: one that never moves any at the start is static, or prunes."""
        return self.drop_fraction(0.0) > 0

    @property
    def resizes(self) -> bool:
        """Whether the number of weights follows a schedule."""
        return self.sparsity is not None

    def sparsity_at(self, final: float, progress: float) -> float:
        """Return a layer's sparsity at some progress of the training in [0, 1], from its final one."""
        return final if self.sparsity is None else self.sparsity(final, progress)

    @property
    def needs_gradient(self) -> bool:
        """Whether its mask updates need the gradient of every weight, kept or not."""
        return self.gradient in ("every", "averaged")

    @checked
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
        sparsity: float | None = None,
        grown: int | None = None,
    ) -> Tensor:
        """Return the next mask [out, in] of `pattern` from mask, weight and gradient at every position, all [out, in].

        `kept` is the number of kept weights, where it is known; with a generator on a CPU, random scores for a GPU are drawn
        there and copied. It is a mask of `sparsity` where that is given, or grows `grown` weights, or else as many as it drops.
        Raises InputError when the rule needs a gradient and gets none, when it is for another pattern, and as
        `prune_and_regrow` and `resized` do.
        """
        if self.only is not None and self.only != pattern:
            raise InputError(
                f"{self.name}: expected masks of pattern {self.only.name!r}, got {pattern.name!r}; take another rule, or a "
                "layer of that pattern"
            )
        if self.gradient != "none" and grad is None:
            raise InputError(f"{self.name}: expected the gradient of every weight, got None; collect it by `dense_gradients`")
        scores = self.keep_score(weight, grad, generator), self.grow_score(weight, grad, generator)
        if sparsity is not None:
            return resized(mask, *scores, drop_fraction, sparsity, pattern=pattern)
        more = {} if grown is None else {"grown": grown}
        return self.choose(mask, *scores, drop_fraction, pattern=pattern, regrow_dropped=self.regrow_dropped, kept=kept, **more)


UPDATES: Table[Update] = Table("update rule")


def register_update(update: Update) -> Update:
    """Enter an update rule in UPDATES under its own name and return it; raises InputError if the name is taken."""
    if not isinstance(update, Update):
        raise InputError(f"expected an Update, got {type(update).__name__}; make one of scores and a schedule")
    UPDATES.enter(update.name, update)
    return update
