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

__all__ = ["ABSENT", "FORWARD", "INPUT_GRADIENT", "LAYERS", "WEIGHT_GRADIENT", "MultiplyAdds", "SparseLinear", "register_layer"]

ABSENT = LAYERS.absent  # what to do about each layer whose package cannot be imported

LAYERS.import_all(sys.modules[__name__])
