"""Which masks a layer accepts, as a value: its masks from scores, its check, and how its masks may move."""

import math
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from sparse_models.errors import InputError, fits
from sparse_models.masks.top_k import check_sparsity, count_kept, refuse_nan, top_k_mask
from sparse_models.masks.units import (
    ROW,
    Group,
    Unit,
    are_whole,
    highest_in_groups,
    in_groups,
    in_pieces,
    summed,
    units_of,
    weights_of,
)


class Pattern(NamedTuple):
    """Which masks a layer accepts, as a value."""

    name: str
    from_score: Callable[[Tensor, float], Tensor]  # score [out, in], sparsity -> mask [out, in]
    accepts: Callable[[Tensor], bool]  # mask [out, in] -> whether the layer can hold it
    unit: Unit = (1, 1)  # the block of weights that is kept or dropped as one
    group: Group | None = None  # among which units of a row as many are always kept; None: any number anywhere
    sparsities: tuple[float, ...] | None = None  # those that there are; None: any
    moves: bool = True  # whether an update rule may move a mask, one layer at a time
    # Where layers cannot choose by themselves: scores and sparsities of a network's layers -> their masks.
    of_network: Callable[[Sequence[Tensor], Sequence[float]], list[Tensor]] | None = None

    def masks(self, scores: Sequence[Tensor], sparsities: Sequence[float]) -> list[Tensor]:
        """Return the masks of a network's layers, each [out, in] as its score, that keep the highest scores."""
        if self.of_network is not None:
            return self.of_network(scores, sparsities)
        return [self.from_score(score, sparsity) for score, sparsity in zip(scores, sparsities, strict=True)]

    @property
    def is_free(self) -> bool:
        """Whether each layer may be of any sparsity, whatever that of the others."""
        return self.sparsities is None and self.of_network is None

    def nearest(self, sparsity: float) -> float:
        """Return a sparsity or, where the pattern has only some, the nearest of those."""
        return sparsity if self.sparsities is None else min(self.sparsities, key=lambda one: abs(one - sparsity))

    def sparsity_of(self, mask: Tensor) -> float:
        """Return the sparsity for which `from_score` keeps as many units as a mask [out, in] of this pattern does."""
        if self.sparsities is not None:
            return self.sparsities[0]
        if self.group == ROW:
            return 1 - int(mask.sum(1).max()) / mask.shape[1]
        units = units_of(mask, self.unit)
        return 1 - int(units.count_nonzero()) / units.numel()


def _full_from_score(score: Tensor, sparsity: float) -> Tensor:
    if check_sparsity(sparsity) != 0:
        raise InputError(f"expected sparsity 0 for a layer that holds every weight, got {sparsity}; choose a sparse layer")
    return torch.ones_like(score, dtype=torch.bool)


UNSTRUCTURED = Pattern(
    "unstructured", lambda score, sparsity: top_k_mask(score, count_kept(score.numel(), sparsity)), lambda _: True
)
FULL = Pattern("full", _full_from_score, lambda mask: bool(mask.all()), sparsities=(0.0,), moves=False)


@cache
def block(rows: int, columns: int) -> Pattern:
    """Return the pattern of blocks of `rows` outputs by `columns` inputs that are kept or dropped whole.

    Those at the edges of a weight whose sizes they do not divide hold what is there. Raises InputError for a size below 1.
    """
    if not (fits(rows, int) and fits(columns, int)) or min(rows, columns) < 1:
        raise InputError(f"expected blocks of at least 1 x 1 weights, got {rows} x {columns}; for example 16 x 16")
    unit = (rows, columns)

    def from_score(score: Tensor, sparsity: float) -> Tensor:
        sums = summed(score, unit)
        return weights_of(top_k_mask(sums, count_kept(sums.numel(), sparsity)), unit, score.shape)

    return Pattern(f"block {rows}x{columns}", from_score, lambda mask: are_whole(mask, unit), unit)


def check_only(sparsity: float, only: float, name: str) -> None:
    """Raise InputError unless a sparsity is the only one that a pattern of this name has."""
    if not math.isclose(check_sparsity(sparsity), only):
        raise InputError(f"expected sparsity {only:g}, the only one of {name}, got {sparsity:g}; choose another pattern")


@cache
def n_of_m(n: int, m: int) -> Pattern:
    """Return the pattern that keeps n of every m weights that follow one another in a row (Mishra et al. 2021, 2:4).

    What is left of a row at its end keeps at most n; a mask that keeps fewer than n is accepted, too. Raises InputError unless
    0 < n < m.
    """
    if not (fits(n, int) and fits(m, int)) or not 0 < n < m:
        raise InputError(f"expected to keep at least 1 and fewer than m of every m weights, got {n}:{m}; for example 2:4")
    only = 1 - n / m

    def from_score(score: Tensor, sparsity: float) -> Tensor:
        check_only(sparsity, only, f"{n}:{m}")
        refuse_nan(score.isnan())
        return in_pieces(score, lambda part: highest_in_groups(part, n, m))

    def accepts(mask: Tensor) -> bool:
        return bool((in_groups(mask, m, 0).sum(-1, dtype=torch.int32) <= n).all())

    return Pattern(f"{n}:{m}", from_score, accepts, group=m, sparsities=(only,))


TWO_FOUR = n_of_m(2, 4)


def _fan_in_from_score(score: Tensor, sparsity: float) -> Tensor:
    kept = count_kept(score.shape[1], sparsity)
    refuse_nan(score.isnan())
    mask = torch.zeros_like(score, dtype=torch.bool)
    return mask.scatter_(1, score.topk(kept, 1, sorted=False).indices, True)  # noqa: FBT003  # the value filled in


def _has_one_fan_in(mask: Tensor) -> bool:
    counts = mask.sum(1)
    return bool(((counts == 0) | (counts == counts.max())).all())


# Every output has as many weights as any other or, where an update rule has ablated it, none (Lasby et al. 2024).
FAN_IN = Pattern("fan-in", _fan_in_from_score, _has_one_fan_in, group=ROW)


def _side(size: int, share: float) -> int:
    """Return how many of so many neurons are kept; where any weight is, at least one."""
    return max(1, round(size * share)) if share > 0 else 0


def _neurons_from_score(score: Tensor, sparsity: float) -> Tensor:
    """Both sides of a single layer shrink by one factor: it stands for one inside a network."""
    share = math.sqrt(1 - check_sparsity(sparsity))
    rows = top_k_mask(score.sum(1), _side(score.shape[0], share))
    columns = top_k_mask(rows.to(score.dtype) @ score, _side(score.shape[1], share))
    return rows[:, None] & columns


def _neurons_of_network(scores: Sequence[Tensor], sparsities: Sequence[float]) -> list[Tensor]:
    """Inputs and outputs of the network stay; a hidden neuron that goes takes its row of one weight and its column of the next.

    How many go follows from the number of weights that all layers together keep. Between two layers whose distribution gives
    them different densities, the share of neurons kept is in proportion to the square root of their geometric mean.
    """
    if len(scores) == 1:
        return [_neurons_from_score(scores[0], sparsities[0])]
    densities = [1 - check_sparsity(sparsity) for sparsity in sparsities]
    sizes = [scores[0].shape[1], *(score.shape[0] for score in scores)]
    wanted = sum(count_kept(score.numel(), sparsity) for score, sparsity in zip(scores, sparsities, strict=True))
    shares = [(before * after) ** 0.25 for before, after in pairwise(densities)]

    def shrunk(factor: float) -> list[int]:
        hidden = [_side(size, min(1.0, share * factor)) for size, share in zip(sizes[1:-1], shares, strict=True)]
        return [sizes[0], *hidden, sizes[-1]]

    def weights(factor: float) -> int:
        return sum(before * after for before, after in pairwise(shrunk(factor)))

    low, high = 0.0, 1 / min((share for share in shares if share > 0), default=1.0)
    for _ in range(50):  # bisection: past any difference that a whole number of neurons can show
        middle = (low + high) / 2
        low, high = (middle, high) if weights(middle) <= wanted else (low, middle)
    # Where not even one neuron a layer would do, one is kept: as long as any weight is wanted.
    factor = high if weights(high) <= wanted else max(low, math.ulp(1.0))
    kept, columns, masks = shrunk(factor), torch.ones_like(scores[0][0], dtype=torch.bool), []
    for number, score in enumerate(scores, 1):
        among = score @ columns.to(score.dtype)
        rows = torch.ones_like(among, dtype=torch.bool) if number == len(scores) else top_k_mask(among, kept[number])
        masks.append(rows[:, None] & columns)
        columns = rows
    return masks


def _is_of_neurons(mask: Tensor) -> bool:
    return torch.equal(mask.any(1)[:, None] & mask.any(0), mask)


# A neuron that goes takes all its weights with it. One layer alone cannot grow another: it has no gradient in the next.
NEURONS = Pattern("neurons", _neurons_from_score, _is_of_neurons, moves=False, of_network=_neurons_of_network)
