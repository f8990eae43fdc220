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


def top_k_mask(score: Tensor, kept: int, among: Tensor | None = None) -> Tensor:
    """Return the mask of exactly `kept` highest scores, ties decided arbitrarily, only where `among` is True if given.

    `score` may have any shape; the mask has the same. Raises InputError for NaN scores and for more kept than there are.
    """
    if score.isnan().any():
        raise InputError("expected scores without NaN, got NaN; look for a training that diverged (a lower learning rate)")
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


def random_score(shape: Sequence[int], generator: torch.Generator | None = None, device: torch.device | str = "cpu") -> Tensor:
    """Return uniform random scores of `shape`, in float64 so that ties do not happen, the same on every device."""
    on = "cpu" if generator is None else generator.device
    return torch.rand(tuple(shape), generator=generator, dtype=torch.float64, device=on).to(device)


def skewed_score(
    shape: Sequence[int],
    sparsity: float,
    skew: float,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return random scores [out, in] by which rows keep numbers of weights whose coefficient of variation is about `skew`.

    Densities of rows are log-normal around that of the whole, cut at 1; within a row every weight is equally likely. Layers
    pruned by magnitude to .9 have about .25.
    """
    sigma = math.sqrt(math.log1p(skew**2))
    normal = torch.special.ndtri(random_score((shape[0], 1), generator).clamp(min=1e-12))
    density = (1 - check_sparsity(sparsity)) * torch.exp(sigma * normal - sigma**2 / 2)
    return (random_score(shape, generator) + density.clamp(max=1.0)).to(device)


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
