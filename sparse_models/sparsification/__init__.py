"""Any module in, with its linear layers made sparse, or dense again; and the pruning of one while it is trained."""

from sparse_models.sparsification.choice import CRITERIA
from sparse_models.sparsification.convolution import SparseConv2d
from sparse_models.sparsification.places import sparse_layers
from sparse_models.sparsification.pruning import GradualPruner
from sparse_models.sparsification.sequential import SparseSequential
from sparse_models.sparsification.swap import densify, sparsify

__all__ = ["CRITERIA", "GradualPruner", "SparseConv2d", "SparseSequential", "densify", "sparse_layers", "sparsify"]
