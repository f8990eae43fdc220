"""One file per layer; importing this package registers them all."""

import sys

from sparse_models.layers._base import MultiplyAdds, SparseLinear
from sparse_models.registry import import_all

__all__ = ["MultiplyAdds", "SparseLinear"]

import_all(sys.modules[__name__])
