"""One file per update rule; importing this package registers them all."""

import sys

from sparse_models.updates._move import dense_gradients, move_mask, update_masks
from sparse_models.updates._rule import UPDATES, Update, constant, cosine, prune_and_regrow, register_update
from sparse_models.updates._scores import gradient_magnitude, magnitude, uniform_random

__all__ = [
    "UPDATES",
    "Update",
    "constant",
    "cosine",
    "dense_gradients",
    "gradient_magnitude",
    "magnitude",
    "move_mask",
    "prune_and_regrow",
    "register_update",
    "uniform_random",
    "update_masks",
]

UPDATES.import_all(sys.modules[__name__])
