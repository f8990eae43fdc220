"""SNIP (Lee et al. 2019, arXiv:1810.02340): before the first step, those weights are kept that the loss is most sensitive to.

They are the highest |weight * gradient| on one batch among the weights of all layers, whatever the distribution, and the mask
never moves.
"""

from sparse_models.updates._rule import Update, constant, register_update
from sparse_models.updates._scores import magnitude, none_grown, sensitivity

SNIP = register_update(Update("snip", magnitude, none_grown, constant(0.0), initial_score=sensitivity, is_default=False))
