"""Random scores, and the masks that keep the highest of them or of the magnitudes."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sparse_models.errors import checked
from sparse_models.masks.top_k import check_sparsity, count_kept, top_k_mask

PIECE = 2**18  # numbers drawn in one go: in float64, of which no second copy of a large weight is to be


@checked
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


@checked
def random_mask(shape: Sequence[int], sparsity: float, generator: torch.Generator | None = None) -> Tensor:
    """Return a mask of `shape` in which every set of `count_kept` weights is equally likely."""
    return top_k_mask(random_score(shape, generator), count_kept(math.prod(shape), sparsity))


@checked
def magnitude_mask(weight: Tensor, sparsity: float) -> Tensor:
    """Return the mask [of weight's shape] that keeps the weights of largest magnitude (Han et al. 2015)."""
    return top_k_mask(weight.detach().abs(), count_kept(weight.numel(), sparsity))
