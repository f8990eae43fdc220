"""RigL (Evci et al. 2020, arXiv:1911.11134): drop the smallest weights, grow where the gradient is largest.

Drops 0.3 / 2 (1 + cos(pi t / T_end)) with T_end at 75 % of the steps, and grows among all that did not survive.
"""

from sparse_models.updates._rule import Update, cosine, register_update
from sparse_models.updates._scores import gradient_magnitude, magnitude

RIGL = register_update(Update("rigl", magnitude, gradient_magnitude, cosine(0.3, until=0.75), gradient="every"))
