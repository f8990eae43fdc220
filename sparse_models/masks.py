"""Masks: bool tensors of their weight's shape, True = kept.

`sparsity` is the fraction of zeros, in [0, 1], in every signature; density = 1 - sparsity appears only inside formulas.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sparse_models.errors import InputError
from sparse_models.table import Table


def check_sparsity(sparsity: float) -> float:
    """Return `sparsity` as a float; raise InputError unless it is a fraction of zeros in [0, 1]."""
    try:
        value = float(sparsity)
    except (TypeError, ValueError):
        value = math.nan
    if not 0 <= value <= 1:
        raise InputError(f"expected a sparsity (fraction of zeros) between 0 and 1, got {sparsity}; 80 % sparse is 0.8")
    return value


def count_kept(size: int, sparsity: float) -> int:
    """Return how many of `size` weights a `sparsity` keeps: the nearest whole number, and the only place that rounds."""
    return round(size * (1 - check_sparsity(sparsity)))


PIECE = 2**18  # numbers drawn in one go: in float64, of which no second copy of a large weight is to be
# From so many scores on, a topk, which copies each score with its place, takes a few times the memory of what it chooses from.
MANY, LOOKED_AT, MARGIN = 2**22, 2**16, 8


def top_k_mask(score: Tensor, kept: int, among: Tensor | None = None) -> Tensor:
    """Return the mask of exactly `kept` highest scores, ties decided arbitrarily, only where `among` is True if given.

    `score` may have any shape; the mask has the same. Raises InputError for NaN scores and for more kept than there are.
    """
    refuse_nan(score.isnan())
    if among is None and score.numel() >= MANY and 0 < kept < score.numel():
        mask = _by_threshold(score, kept)
        if mask is not None:
            return mask
    flat = score.reshape(-1)
    places = None if among is None else among.reshape(-1).nonzero().squeeze(1)
    available = flat.numel() if places is None else places.numel()
    if not 0 <= kept <= available:
        raise InputError(f"expected to keep between 0 and {available} weights, got {kept}; lower the number kept")
    # An unsorted topk is a quickselect: 4 to 5 times faster than sorting, and exact in number whatever the ties.
    chosen = torch.topk(flat if places is None else flat[places], kept, sorted=False).indices
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
    mask.view(-1)[places[torch.topk(score.reshape(-1)[places], missing, sorted=False).indices]] = True
    return mask


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


def random_score(
    shape: Sequence[int],
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Return uniform random scores of `shape` on a device, in float64 so that ties do not happen, or rounded to `dtype`.

    They are drawn where the generator is: one on the CPU gives the same on every device, and copies them there; one on a GPU
    gives others, at once. Without a generator the device's own draws; without a device they stay where they were drawn.
    """
    scores = uniform_numbers(shape, generator, _drawn_on(generator, device), dtype, lambda drawn, _: drawn)
    return scores if device is None else scores.to(device)


def uniform_numbers(
    shape: Sequence[int],
    generator: torch.Generator | None,
    device: torch.device | str,
    dtype: torch.dtype,
    change: Callable[[Tensor, slice], Tensor],
) -> Tensor:
    """Return random numbers of `shape`: uniform ones in float64, drawn and changed a few rows at a time, in `dtype`."""
    numbers = torch.empty(tuple(shape), dtype=dtype, device=device)
    count, rest = (shape[0], tuple(shape[1:])) if shape else (1, ())
    at_once = max(1, PIECE // max(1, math.prod(rest)))
    for start in range(0, count, at_once):
        rows = slice(start, min(count, start + at_once))
        drawn = torch.rand((rows.stop - start, *rest), generator=generator, dtype=torch.float64, device=device)
        numbers.reshape(count, *rest)[rows] = change(drawn, rows)
    return numbers


def _drawn_on(generator: torch.Generator | None, device: torch.device | str | None) -> torch.device | str:
    return (device or "cpu") if generator is None else generator.device


def skewed_score(
    shape: Sequence[int],
    sparsity: float,
    skew: float,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Return random scores [out, in] by which rows keep numbers of weights whose coefficient of variation is about `skew`.

    Densities of rows are log-normal around that of the whole, cut at 1; within a row every weight is equally likely. Layers
    pruned by magnitude to .9 have about .25. Drawn where `random_score` draws.
    """
    sigma = math.sqrt(math.log1p(skew**2))
    on = _drawn_on(generator, device)
    normal = torch.special.ndtri(random_score((shape[0], 1), generator, on).clamp(min=1e-12))
    density = ((1 - check_sparsity(sparsity)) * torch.exp(sigma * normal - sigma**2 / 2)).clamp_(max=1.0)
    score = uniform_numbers(shape, generator, on, dtype, lambda drawn, rows: drawn + density[rows])
    return score if device is None else score.to(device)


def random_mask(shape: Sequence[int], sparsity: float, generator: torch.Generator | None = None) -> Tensor:
    """Return a mask of `shape` in which every set of `count_kept` weights is equally likely."""
    return top_k_mask(random_score(shape, generator), count_kept(math.prod(shape), sparsity))


def magnitude_mask(weight: Tensor, sparsity: float) -> Tensor:
    """Return the mask [of weight's shape] that keeps the weights of largest magnitude (Han et al. 2015)."""
    return top_k_mask(weight.detach().abs(), count_kept(weight.numel(), sparsity))


class Pattern(NamedTuple):
    """Which masks a layer accepts, as a value."""

    name: str
    from_score: Callable[[Tensor, float], Tensor]  # score [out, in], sparsity -> mask [out, in]
    accepts: Callable[[Tensor], bool]  # mask [out, in] -> whether the layer can hold it


def _full_from_score(score: Tensor, sparsity: float) -> Tensor:
    if check_sparsity(sparsity) != 0:
        raise InputError(f"expected sparsity 0 for a layer that holds every weight, got {sparsity}; choose a sparse layer")
    return torch.ones_like(score, dtype=torch.bool)


UNSTRUCTURED = Pattern(
    "unstructured", lambda score, sparsity: top_k_mask(score, count_kept(score.numel(), sparsity)), lambda _: True
)
FULL = Pattern("full", _full_from_score, lambda mask: bool(mask.all()))


def uniform(shapes: Sequence[Sequence[int]], sparsity: float) -> list[float]:
    """Return the same sparsity for every layer."""
    return [check_sparsity(sparsity)] * len(shapes)


def erdos_renyi(shapes: Sequence[Sequence[int]], sparsity: float) -> list[float]:
    """Return sparsities with density proportional to (out + in) / (out * in) (Mocanu et al. 2018).

    `shapes` are weight shapes [out, in, ...]; layers that would pass density 1 are kept whole, the others share the rest.
    """
    return _proportional([sum(shape[:2]) / math.prod(shape[:2]) for shape in shapes], shapes, sparsity)


def erdos_renyi_kernel(shapes: Sequence[Sequence[int]], sparsity: float) -> list[float]:
    """Return sparsities with density proportional to sum(shape) / prod(shape), kernel sizes included (Evci et al. 2020)."""
    return _proportional([sum(shape) / math.prod(shape) for shape in shapes], shapes, sparsity)


def _proportional(raw: list[float], shapes: Sequence[Sequence[int]], sparsity: float) -> list[float]:
    sizes = [math.prod(shape) for shape in shapes]
    kept = (1 - check_sparsity(sparsity)) * sum(sizes)
    free = set(range(len(sizes)))
    epsilon = 0.0
    while free:
        budget = kept - sum(size for layer, size in enumerate(sizes) if layer not in free)
        epsilon = budget / sum(raw[layer] * sizes[layer] for layer in free)
        # Making one layer whole only raises epsilon for the others, so all that pass density 1 can go at once.
        whole = {layer for layer in free if epsilon * raw[layer] > 1}
        if not whole:
            break
        free -= whole
    return [min(1.0, max(0.0, 1 - epsilon * raw[layer])) if layer in free else 0.0 for layer in range(len(sizes))]


DISTRIBUTIONS: Table[Callable[[Sequence[Sequence[int]], float], list[float]]] = Table("distribution")
DISTRIBUTIONS |= {"uniform": uniform, "er": erdos_renyi, "erk": erdos_renyi_kernel}
