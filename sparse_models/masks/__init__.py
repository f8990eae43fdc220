"""Masks: bool tensors of their weight's shape, True = kept.

`sparsity` is the fraction of zeros, in [0, 1], in every signature; density = 1 - sparsity appears only inside formulas.
"""

from sparse_models.masks.distributions import DISTRIBUTIONS, erdos_renyi, erdos_renyi_kernel, uniform
from sparse_models.masks.patterns import FAN_IN, FULL, NEURONS, TWO_FOUR, UNSTRUCTURED, Pattern, block, n_of_m
from sparse_models.masks.scores import magnitude_mask, random_mask, random_score, skewed_score, uniform_numbers
from sparse_models.masks.top_k import check_sparsity, count_kept, highest_places, refuse_nan, top_k_mask

__all__ = [
    "DISTRIBUTIONS",
    "FAN_IN",
    "FULL",
    "NEURONS",
    "TWO_FOUR",
    "UNSTRUCTURED",
    "Pattern",
    "block",
    "check_sparsity",
    "count_kept",
    "erdos_renyi",
    "erdos_renyi_kernel",
    "highest_places",
    "magnitude_mask",
    "n_of_m",
    "random_mask",
    "random_score",
    "refuse_nan",
    "skewed_score",
    "top_k_mask",
    "uniform",
    "uniform_numbers",
]
