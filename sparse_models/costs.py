"""What a model costs: parameters, non-zeros, bytes, and FLOPs counted and executed (2 per multiply-add, products only)."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sparse_models.layers import FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT, SparseLinear


class Size(NamedTuple):
    """The size of a stack of layers; `effective_sparsity` is the fraction of its weights that cannot be other than 0."""

    parameters: int  # stored numbers that are trained, biases included
    weights: int  # entries of the dense weights, kept or not
    nnz: int  # kept weights
    effective_sparsity: float
    bytes_stored: int  # parameters and structure (masks, indices)


def size(layers: Iterable[SparseLinear]) -> Size:
    """Return the size of `layers` as they are now."""
    layers = list(layers)
    weights = sum(layer.in_features * layer.out_features for layer in layers)
    nnz = sum(layer.nnz for layer in layers)
    parameters = [parameter for layer in layers for parameter in layer.parameters()]
    buffers = [buffer for layer in layers for buffer in layer.buffers()]
    return Size(
        parameters=sum(parameter.numel() for parameter in parameters),
        weights=weights,
        nnz=nnz,
        effective_sparsity=1 - nnz / weights,
        bytes_stored=sum(tensor.numel() * tensor.element_size() for tensor in [*parameters, *buffers]),
    )


# The products that each operation consists of; the literature counts each as one forward pass.
PRODUCTS = {
    "forward": (FORWARD,),
    "training_forward": (FORWARD,),
    "input_gradient": (INPUT_GRADIENT,),
    "weight_gradient": (WEIGHT_GRADIENT,),
    "optimizer": (),
    "backward": (INPUT_GRADIENT, WEIGHT_GRADIENT),
    "step": (FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT),
    "training_step": (FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT),
}


def counted_flops(weights: int, batch: int, op: str) -> int:
    """Return the FLOPs that `op` needs for `weights` non-zeros and `batch` samples: 2 per multiply-add and forward pass."""
    return 2 * weights * batch * len(PRODUCTS[op])


def counted_training_flops(nnz: int, weights: int, samples: int, interval: int, *, needs_gradient: bool) -> float:
    """Return the FLOPs that a training on `samples` (epochs times their number) needs, averaged over mask updates as in RigL.

    A step costs 3 f_S; a rule that looks at the gradient of every weight each `interval` steps costs
    (3 f_S interval + 2 f_S + f_D) / (interval + 1) a step, where f_S and f_D are the sparse and dense forward FLOPs
    (Evci et al. 2020, appendix H). It is the published average: a schedule that stops early really needs a little less.
    """
    sparse, dense = 2 * nnz, 2 * weights
    a_step = (3 * sparse * interval + 2 * sparse + dense) / (interval + 1) if needs_gradient else 3 * sparse
    return float(a_step * samples)


def executed_flops(layers: Sequence[SparseLinear], batch: int, op: str, *, input_gradient: bool = True) -> int:
    """Return the FLOPs that the layers' own kernels execute for `op`.

    `input_gradient` says whether the first layer computes one: in a training it does not.
    """
    total = 0
    for number, layer in enumerate(layers):
        executed = layer.multiply_adds
        total += sum(executed[product] for product in PRODUCTS[op] if product != INPUT_GRADIENT or input_gradient or number)
    return 2 * batch * total
