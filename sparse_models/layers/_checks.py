"""What a layer refuses, each in one sentence; and which memory is another layer's too."""

import gc
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from sparse_models.errors import InputError
from sparse_models.kernels.asynchronous import is_asynchronous, is_captured
from sparse_models.linear import is_memory

if TYPE_CHECKING:
    from sparse_models.layers._base import SparseLinear

# Layers whose masks move together, with the tensors in the shape of their values that move along, as an optimizer's.
Moving: TypeAlias = "Mapping[SparseLinear, Sequence[Tensor]]"
LIVING: "WeakValueDictionary[int, SparseLinear]" = WeakValueDictionary()  # all layers that there are


def check_weight(layer: "SparseLinear", weight: Tensor, bias: Tensor | None) -> None:
    """Raise InputError unless a layer can be built from weight [out, in] and bias [out] or None."""
    name = type(layer).__name__
    for what, tensor in (("weight", weight), ("bias", bias)):
        is_plain = isinstance(tensor, Tensor) and tensor.layout == torch.strided
        if not is_plain and (what == "weight" or tensor is not None):
            got = getattr(tensor, "layout", type(tensor).__name__)
            raise InputError(f"{name}: expected a {what} that is a tensor in strides, got {got}; convert it")
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
    if not isinstance(mask, Tensor) or mask.layout != torch.strided:
        got = getattr(mask, "layout", type(mask).__name__)
        raise InputError(f"{name}: expected a bool mask of shape {shape} that is a tensor in strides, got {got}; convert it")
    if mask.dtype != torch.bool or list(mask.shape) != shape or mask.device != device:
        raise InputError(
            f"{name}: expected a bool mask of shape {shape} on {device}, True = kept, "
            f"got {mask.dtype} of shape {list(mask.shape)} on {mask.device}; convert it"
        )
    trusted = is_captured(mask) or (is_made_for and is_asynchronous(mask))
    if not trusted and not layer.pattern.accepts(mask):
        raise InputError(f"{name}: expected a mask of pattern {layer.pattern.name!r}, got another; build it by the pattern")


def check_move(layer: "SparseLinear", mask: Tensor, nnz: int | None, *, in_place: bool) -> int | None:
    """Return how many weights a mask [out, in] keeps, where that is known; raises InputError unless a layer can move to it."""
    check_mask(layer, mask, layer.values.device, is_made_for=nnz is not None)
    if not in_place and not is_captured(mask):
        return nnz
    now = layer.nnz_as_set
    if nnz is None:
        nnz = now if is_captured(mask) else int(mask.sum())
    if nnz != now:
        raise InputError(f"expected a mask of {now} weights to move to in place, got one of {nnz}; do without in_place")
    return nnz


def check_own(moving: "Moving", *, in_place: bool) -> None:
    """Raise InputError unless layers' values are their own to move: as they made them, and no other layer's parameter.

    To be moved in place, and always while a CUDA graph is captured, none of that memory may be another layer's or process's:
    that one would compute by another index than its own. It is asked once of all that move together, before the first does.
    """
    held = {layer: layer._parameters.get("values") for layer in moving}  # noqa: SLF001  # whatever takes its place
    if any(values is None or not is_memory(values) for values in held.values()):
        raise InputError(
            "expected values as the layer made them, got others in their place (parametrized, pruned or sharded); undo it"
        )
    if _tied(held):
        gc.collect()  # of a model that was let go of, layers that refer to one another are there until then
        for name in _tied(held):
            raise InputError(
                f"{name}: expected values that no other layer has, got a parameter of two, of which one mask alone would move; "
                "use one layer in both places, or give each a copy"
            )
    in_place = in_place or any(values is not None and is_captured(values) for values in held.values())
    if in_place and share_memory(moving):
        raise InputError(
            "expected memory that no other layer or process has, got some that another has too; do without in_place, or give "
            "each a copy"
        )


def share_memory(moving: "Moving") -> bool:
    """Tell whether what a move rewrites, values, index and what moves along, is in memory that others have too.

    Others are one another, any other layer that there is, and, on a CPU, other processes: on a GPU nobody knows. Of an index of
    other layers only the first tensor is looked at: its tensors go together, and to look at all of many layers takes a good
    part of a small update's time.
    """
    own = [
        _storages((layer._parameters.get("values"), *layer._buffers.values(), *moments))  # noqa: SLF001
        for layer, moments in moving.items()
    ]
    all_own = {place: storage for storages in own for place, storage in storages.items()}
    others = [layer for layer in _living() if layer not in moving]
    told = [tensor for layer in others for tensor in (*layer._parameters.values(), *islice(layer._buffers.values(), 1))]  # noqa: SLF001
    if len(all_own) < sum(map(len, own)) or not all_own.keys().isdisjoint(_storages(told)):
        return True
    return any(storage.is_shared() for storage in all_own.values() if storage.device.type == "cpu")


def _tied(held: Mapping["SparseLinear", Tensor | None]) -> list[str]:
    """Return the names of those layers whose values are another layer's parameter too."""
    owners = Counter(id(other._parameters.get("values")) for other in _living())  # noqa: SLF001
    return [type(layer).__name__ for layer, values in held.items() if owners[id(values)] > 1]


def _living() -> list["SparseLinear"]:
    """Return all layers that there are, but for those that are being made."""
    found = (reference() for reference in LIVING.valuerefs())  # a copy, as another thread may make one more
    return [layer for layer in found if layer is not None and "_parameters" in vars(layer)]


def _storages(tensors: Iterable[Tensor | None]) -> dict[int, torch.UntypedStorage]:
    """Return the whole memory that each tensor is a part of, by where it begins; what is empty or no plain tensor has none."""
    plain = (tensor for tensor in tensors if type(tensor) in (Tensor, nn.Parameter))
    storages = (tensor.untyped_storage() for tensor in plain if tensor is not None)
    return {place: storage for storage in storages if (place := storage.data_ptr())}
