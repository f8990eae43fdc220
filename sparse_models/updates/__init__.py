"""One file per update rule; importing this package registers them all."""

import sys

from sparse_models.kernels.cpu.chain._factors import Gradient, dense_of
from sparse_models.masks.regrow import prune_and_regrow, resized
from sparse_models.updates._by_kernels.on_cpu import Moves
from sparse_models.updates._move import (
    Move,
    dense_gradients,
    kept_gradients,
    move_mask,
    move_masks,
    rewind,
    update_masks,
)
from sparse_models.updates._rule import UPDATES, Update, constant, cosine, cubic, in_rounds, register_update
from sparse_models.updates._scores import gradient_magnitude, magnitude, sensitivity, uniform_random

__all__ = [
    "UPDATES",
    "Gradient",
    "Move",
    "Moves",
    "Update",
    "constant",
    "cosine",
    "cubic",
    "dense_gradients",
    "dense_of",
    "gradient_magnitude",
    "in_rounds",
    "kept_gradients",
    "magnitude",
    "move_mask",
    "move_masks",
    "prune_and_regrow",
    "register_update",
    "resized",
    "rewind",
    "sensitivity",
    "uniform_random",
    "update_masks",
]

UPDATES.import_all(sys.modules[__name__])
