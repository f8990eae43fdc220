"""SET, sparse evolutionary training (Mocanu et al. 2018, arXiv:1707.04780): drop the smallest, grow at random.

The paper drops the smallest positive and the largest negative weights; this drops by magnitude, as later work does.
"""

from sparse_models.updates._rule import Update, constant, register_update
from sparse_models.updates._scores import magnitude, uniform_random

SET = register_update(Update("set", magnitude, uniform_random, constant(0.3)))
