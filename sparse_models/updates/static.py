"""The mask never moves."""

from sparse_models.updates._rule import Update, constant, register_update
from sparse_models.updates._scores import magnitude, uniform_random

STATIC = register_update(Update("static", magnitude, uniform_random, constant(0.0)))
