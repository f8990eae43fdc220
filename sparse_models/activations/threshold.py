"""Activations of small magnitude set to 0, so that a layer that skips zero inputs has more of them to skip."""

import math

import torch
from torch import Tensor, nn

from sparse_models.errors import InputError


class MagnitudeThreshold(nn.Module):
    """Sets activations whose magnitude is at most a threshold to 0 (CATS, arXiv:2404.08763; TEAL, arXiv:2408.14690).

    The threshold is chosen on samples, as the quantile of their magnitudes at the share that is to be 0; 0 leaves all as it is.
    NaN stays NaN. The gradient passes to what is left.
    """

    threshold: Tensor

    def __init__(self, threshold: float = 0.0) -> None:
        """Take a threshold; raises InputError for one below 0."""
        super().__init__()
        if not threshold >= 0:
            raise InputError(f"MagnitudeThreshold: expected a threshold of at least 0, got {threshold}; magnitudes are")
        self.register_buffer("threshold", torch.tensor(threshold))

    @classmethod
    def for_share(cls, samples: Tensor, share: float) -> "MagnitudeThreshold":
        """Return the smallest threshold that sets at least a share of the samples' numbers to 0.

        Raises InputError for a share outside of [0, 1] and for no samples.
        """
        if not 0 <= share <= 1 or samples.numel() == 0:
            raise InputError(
                f"MagnitudeThreshold: expected a share from 0 to 1 of one number or more, got {share} of {samples.numel()}; "
                "pass activations of training samples"
            )
        count = math.ceil(share * samples.numel())
        magnitudes, found = samples.detach().abs().reshape(-1), cls()
        found.threshold = magnitudes.kthvalue(count).values if count else magnitudes.new_zeros(())  # in the samples' dtype
        return found

    def forward(self, x: Tensor) -> Tensor:
        """Return x with magnitudes of at most the threshold 0."""
        return x.masked_fill(x.abs() <= self.threshold, 0)

    def extra_repr(self) -> str:
        """Return the threshold, as printed by PyTorch."""
        return f"threshold={float(self.threshold):g}"
