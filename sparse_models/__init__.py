"""Sparse neural networks, measured: masks, layers, update rules, models and the gate that every layer must pass."""

from sparse_models import layers, updates
from sparse_models.errors import GateError, InputError
from sparse_models.layers import LAYERS, SparseLinear, register_layer
from sparse_models.masks import count_kept, magnitude_mask, random_mask
from sparse_models.models import MLP, dense_mlp, draw, narrow_mlp, sparse_mlp
from sparse_models.sparsification import GradualPruner, SparseConv2d, SparseSequential, densify, sparse_layers, sparsify
from sparse_models.training import Settings, evaluate, train
from sparse_models.updates import UPDATES, Update, dense_gradients, register_update, update_masks

__all__ = [
    "LAYERS",
    "MLP",
    "UPDATES",
    "GateError",
    "GradualPruner",
    "InputError",
    "Settings",
    "SparseConv2d",
    "SparseLinear",
    "SparseSequential",
    "Update",
    "count_kept",
    "dense_gradients",
    "dense_mlp",
    "densify",
    "draw",
    "evaluate",
    "layers",
    "magnitude_mask",
    "narrow_mlp",
    "random_mask",
    "register_layer",
    "register_update",
    "sparse_layers",
    "sparse_mlp",
    "sparsify",
    "train",
    "update_masks",
    "updates",
]
