"""Modules that make activations sparse: by a number of winners of each sample, or by a threshold of their magnitudes."""

from sparse_models.activations.k_winners import KWinners
from sparse_models.activations.threshold import MagnitudeThreshold

__all__ = ["KWinners", "MagnitudeThreshold"]
