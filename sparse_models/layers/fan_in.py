"""Constant fan-in: every output has as many weights as any other, or none, as SRigL keeps them (Lasby et al. 2024)."""

from typing import ClassVar

from sparse_models.layers._base import register_layer
from sparse_models.layers.tiled import Tiled
from sparse_models.masks import FAN_IN, Pattern


@register_layer("fan_in")
class FanIn(Tiled):
    """The kernels of `tiled` on rows of equal length, which fill its slices for a single sample in their own order.

    That is worth 1 to 5 % of a sample's time up to a sparsity of .9, 2 to 10 % at .95 and up to a fifth at .99, where sums that
    are stored one by one count. With 128 samples nothing is gained: what a row costs beside its products is little.
    """

    pattern: ClassVar[Pattern] = FAN_IN
    is_default: ClassVar[bool] = False
