"""Scores in, the mask of the highest out; a sparsity in, a number of weights out: the only place that rounds."""

import math

import torch
from torch import Tensor

from sparse_models.errors import InputError, checked


def check_sparsity(sparsity: float) -> float:
    """Return `sparsity` as a float; raise InputError unless it is a fraction of zeros in [0, 1]."""
    try:
        value = math.nan if isinstance(sparsity, bool) else float(sparsity)
    except (TypeError, ValueError):
        value = math.nan
    if not 0 <= value <= 1:
        raise InputError(f"expected a sparsity (fraction of zeros) between 0 and 1, got {sparsity}; 80 % sparse is 0.8")
    return value


@checked
def count_kept(size: int, sparsity: float) -> int:
    """Return how many of `size` weights a `sparsity` keeps: the nearest whole number, and the only place that rounds."""
    return round(size * (1 - check_sparsity(sparsity)))


# From so many scores on, a topk, which copies each score with its place, takes a few times the memory of what it chooses from.
MANY, LOOKED_AT, MARGIN = 2**22, 2**16, 8


@checked
def top_k_mask(score: Tensor, kept: int, among: Tensor | None = None) -> Tensor:
    """Return the mask of exactly `kept` highest scores, of equal ones the first, only where `among` is True if given.

    `score` may have any shape; the mask has the same. Raises InputError for NaN scores and for more kept than there are.
    """
    if score.layout != torch.strided or score.is_meta or score.is_complex() or score.dtype == torch.bool:
        got = f"{score.dtype} on {score.device} in {score.layout}"
        raise InputError(f"expected scores that are real numbers in strides, got {got}; convert them")
    refuse_nan(score.isnan())
    if among is not None and (among.dtype, among.shape) != (torch.bool, score.shape):
        raise InputError(
            f"expected a bool mask of shape {list(score.shape)} to choose among, got {among.dtype} of {list(among.shape)}; "
            "pass the layer's own"
        )
    if among is not None and among.all():
        among = None  # the places of all take several times the memory of the scores
    if among is None and score.numel() >= MANY and 0 < kept < score.numel():
        mask = _by_threshold(score, kept)
        if mask is not None:
            return mask
    flat = score.reshape(-1)
    places = None if among is None else among.reshape(-1).nonzero().squeeze(1)
    available = flat.numel() if places is None else places.numel()
    if not 0 <= kept <= available:
        raise InputError(f"expected to keep between 0 and {available} weights, got {kept}; lower the number kept")
    chosen = _highest(flat if places is None else flat[places], kept)
    mask = torch.zeros_like(flat, dtype=torch.bool)
    mask[chosen if places is None else places[chosen]] = True
    return mask.reshape(score.shape)


def _by_threshold(score: Tensor, kept: int) -> Tensor | None:
    """Return `top_k_mask` of many scores without a copy of them; None where too many are alike.

    Between two thresholds, told by some of the scores with a margin of 8 standard deviations, lies the one looked for: what is
    above both is kept, and only of what lies between is the exact number chosen.
    """
    some = score.reshape(-1)[:: max(1, score.numel() // LOOKED_AT)].sort(descending=True).values
    share, most = kept / score.numel(), len(some) - 1
    margin = MARGIN * math.sqrt(share * (1 - share) * len(some)) + 1
    high, low = (some[min(most, max(0, int(share * len(some) + offset)))] for offset in (-margin, margin))
    mask = score > high
    between = (score >= low).logical_and_(~mask).reshape(-1)
    missing, count = kept - int(mask.count_nonzero()), int(between.count_nonzero())
    if not 0 <= missing <= count or count > score.numel() // 8:
        return None
    places = between.nonzero().squeeze(1)
    mask.view(-1)[places[_highest(score.reshape(-1)[places], missing)]] = True
    return mask


def _highest(score: Tensor, kept: int) -> Tensor:
    """Return where the `kept` highest of scores [n] stand, in any order; of equal ones they are the first."""
    # An unsorted topk is a quickselect: 4 to 5 times faster than sorting, and exact in number whatever the ties.
    chosen = torch.topk(score, kept, sorted=False)
    if not 0 < kept < len(score):
        return chosen.indices
    least = chosen.values.min()
    is_least = chosen.values == least
    equal = (score == least).nonzero().squeeze(1)
    if len(equal) > (number := int(is_least.sum())):
        chosen.indices[is_least] = equal[:number]
    return chosen.indices


def refuse_nan(found: Tensor) -> None:
    """Raise InputError where any of `found`, whether scores are NaN, is True."""
    if found.any():
        raise InputError("expected scores without NaN, got NaN; look for a training that diverged (a lower learning rate)")


def highest_places(score: Tensor, kept: int, excluded: Tensor) -> Tensor:
    """Return where in the flattened score the `kept` highest outside `excluded` stand [kept], as `top_k_mask` chooses them.

    Nothing is asked of the device, so nothing is refused: NaN counts as the highest, and there must be `kept` to choose from.
    """
    score = score if score.is_floating_point() else score.double()
    # What is excluded alone is -inf, lest a score of -inf ties with it.
    outside = score.clamp(min=torch.finfo(score.dtype).min).masked_fill_(excluded, -math.inf)
    return torch.topk(outside.reshape(-1), kept, sorted=False).indices
