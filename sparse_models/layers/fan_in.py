"""Constant fan-in: every output has as many weights as any other, or none, as SRigL keeps them (Lasby et al. 2024)."""

from typing import ClassVar

from sparse_models.layers._base import register_layer
from sparse_models.layers.tiled import Tiled
from sparse_models.masks import FAN_IN, Pattern


@register_layer("fan_in")
class FanIn(Tiled):
    """The kernels of `tiled` on rows of equal length, which fill its slices for a single sample without being sorted.

    Nothing else is gained by that length: not at larger batches, where a row's remainder is little beside its products, nor
    over `tiled`, which sorts its rows once for the same slices (SRigL's condensed form is one of these without windows).
    """

    pattern: ClassVar[Pattern] = FAN_IN
    is_default: ClassVar[bool] = False
