"""Gradual magnitude pruning (Zhu and Gupta 2017, arXiv:1710.01878): from dense, the smallest weights go, fast and then slowly.

By the paper's cubic schedule from the first update on, to the final sparsity at 75 % of the steps; what is pruned stays so.
"""

from sparse_models.updates._rule import Update, constant, cubic, register_update
from sparse_models.updates._scores import magnitude, none_grown

GMP = register_update(
    Update("gmp", magnitude, none_grown, constant(0.0), sparsity=cubic(until=0.75), conserves=False, is_default=False)
)
