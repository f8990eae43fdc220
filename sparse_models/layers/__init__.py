"""One file per layer; importing this package registers them all."""

import sys

from sparse_models.layers._base import (
    FORWARD,
    INPUT_GRADIENT,
    LAYERS,
    WEIGHT_GRADIENT,
    MultiplyAdds,
    SparseLinear,
    register_layer,
)

__all__ = ["FORWARD", "INPUT_GRADIENT", "LAYERS", "WEIGHT_GRADIENT", "MultiplyAdds", "SparseLinear", "register_layer"]

LAYERS.import_all(sys.modules[__name__])
