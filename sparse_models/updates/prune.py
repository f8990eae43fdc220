"""Magnitude pruning of a trained net, which is then fine-tuned (Han et al. 2015, arXiv:1506.02626).

Dense for the first half of the steps; then the smallest weights of each layer go at once, and the others are trained on, from
where they are, for the second half.
"""

from sparse_models.updates._rule import Update, constant, in_rounds, register_update
from sparse_models.updates._scores import magnitude, none_grown

PRUNE = register_update(
    Update("prune", magnitude, none_grown, constant(0.0), sparsity=in_rounds(1, until=0.5), conserves=False, is_default=False)
)
