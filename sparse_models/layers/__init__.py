"""One file per layer; importing this package registers them all."""

import sys

from sparse_models.layers._base import FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT, MultiplyAdds, SparseLinear
from sparse_models.registry import import_all

__all__ = ["FORWARD", "INPUT_GRADIENT", "WEIGHT_GRADIENT", "MultiplyAdds", "SparseLinear"]

import_all(sys.modules[__name__])
