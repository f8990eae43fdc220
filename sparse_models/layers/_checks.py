"""What a layer refuses to be built from, each in one sentence."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sparse_models.errors import InputError
from sparse_models.kernels.asynchronous import is_asynchronous, is_captured

if TYPE_CHECKING:
    from sparse_models.layers._base import SparseLinear


def check_weight(layer: "SparseLinear", weight: Tensor, bias: Tensor | None) -> None:
    """Raise InputError unless a layer can be built from weight [out, in] and bias [out] or None."""
    name = type(layer).__name__
    if weight.dim() != 2 or 0 in weight.shape:
        raise InputError(f"{name}: expected a weight of shape [out, in], both at least 1, got {list(weight.shape)}; reshape it")
    if bias is not None and (bias.shape, bias.dtype, bias.device) != (weight.shape[:1], weight.dtype, weight.device):
        raise InputError(
            f"{name}: expected a bias of shape [{weight.shape[0]}], {weight.dtype} on {weight.device}, "
            f"got {list(bias.shape)}, {bias.dtype} on {bias.device}; one per output, as the weight is"
        )
    dtype = str(weight.dtype).removeprefix("torch.")
    device = weight.device.type
    if dtype not in layer.dtypes_on(device):
        able = "; ".join(f"{' or '.join(layer.dtypes_on(one))} on {one}" for one in layer.devices)
        do = layer.absent.get(device, "convert the weight")
        raise InputError(f"{name}: expected {able}, got {dtype} on {device}; {do}")
    if weight.isnan().any() or (bias is not None and bias.isnan().any()):
        raise InputError(f"{name}: expected weights without NaN, got NaN; look for a training that diverged")


def check_number_type(layer: "SparseLinear", values: Tensor) -> None:
    """Raise InputError unless a layer can multiply by values of this number type: `layer.bfloat16()` converts them unasked."""
    device = values.device.type
    if str(values.dtype).removeprefix("torch.") not in layer.dtypes_on(device):
        able = " or ".join(layer.dtypes_on(device)) or f"weights on {' or '.join(layer.devices)}"
        raise InputError(
            f"{type(layer).__name__}: expected {able}, got {values.dtype} on {device}; convert the layer and its input"
        )


def check_mask(layer: "SparseLinear", mask: Tensor, device: torch.device, *, is_made_for: bool = False) -> None:
    """Raise InputError unless a layer can hold a mask [out, in], on the device of its weights.

    Whether it is of the layer's pattern is not asked while a CUDA graph is captured nor, where the host would wait for the
    answer, of a mask that was made for the layer.
    """
    name, shape = type(layer).__name__, [layer.out_features, layer.in_features]
    if mask.dtype != torch.bool or list(mask.shape) != shape or mask.device != device:
        raise InputError(
            f"{name}: expected a bool mask of shape {shape} on {device}, True = kept, "
            f"got {mask.dtype} of shape {list(mask.shape)} on {mask.device}; convert it"
        )
    trusted = is_captured(mask) or (is_made_for and is_asynchronous(mask))
    if not trusted and not layer.pattern.accepts(mask):
        raise InputError(f"{name}: expected a mask of pattern {layer.pattern.name!r}, got another; build it by the pattern")
