"""Masks of layers moved by kernels of a CPU: which rules and layers they know, and what is held from update to update."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sparse_models.kernels.cpu._team import threads
from sparse_models.kernels.cpu.chain._factors import Factors, Gradient
from sparse_models.kernels.cpu.moves._table import Storage
from sparse_models.kernels.cpu.moves.held import HeldLayers
from sparse_models.kernels.cpu.moves.numbers import drawn_keys
from sparse_models.layers import SparseLinear
from sparse_models.layers._checks import share_memory
from sparse_models.layers._feature_major.both_ways import CsrBothWays
from sparse_models.masks.regrow import prune_and_regrow
from sparse_models.masks.top_k import count_kept, refuse_nan
from sparse_models.updates._rule import Update
from sparse_models.updates._scores import gradient_magnitude, magnitude, uniform_random


class Moves:
    """Masks of layers moved by kernels, with what is known from one update to the next: to find it takes as long as a move."""

    def __init__(self) -> None:
        """Know nothing."""
        self._held: HeldLayers | None = None

    def take(
        self,
        layers: Sequence[SparseLinear],
        update: Update,
        drop_fraction: float,
        optimizer: torch.optim.Optimizer | None,
        gradients: Mapping[SparseLinear, Gradient] | None,
        generator: torch.Generator | None,
    ) -> bool:
        """Do what `update_masks` does, in the memory that there is; or nothing at all, and return False, where no kernel can.

        None can where others, who know nothing of the move, share that memory.

        Raises InputError for NaN before anything is changed.
        """
        by_gradient = update.grow_score is gradient_magnitude
        if not is_known(layers, update, drop_fraction, gradients):
            return False
        if not by_gradient and generator is not None and generator.device.type != "cpu":
            return False
        held = self._found(layers, optimizer, by_gradient=by_gradient)
        if held is None or share_memory({layer: work.storage.slots for layer, work in zip(layers, held.works, strict=True)}):
            return False
        sources = [gradients[layer] if by_gradient and gradients is not None else drawn_keys(generator) for layer in layers]
        for work, source in zip(held.works, sources, strict=True):
            like = source.slopes[0] if isinstance(source, Factors) else source
            if isinstance(like, Tensor) and (like.dtype, len(like)) != (work.scored, work.storage.shape[0]):
                return False
        kept = [work.storage.values.numel() for work in held.works]
        if not held.move(sources, [number - count_kept(number, drop_fraction) for number in kept]):
            refuse_nan(torch.tensor([True], device="cpu"))
        for layer in layers:
            layer.values.grad = None  # it belongs to the old structure
        return True

    def _found(
        self, layers: Sequence[SparseLinear], optimizer: torch.optim.Optimizer | None, *, by_gradient: bool
    ) -> "HeldLayers | None":
        """Return the layers as kernels take them, found before if all tensors are the same; None where one is not taken."""
        storages = [storage_of(layer, optimizer) for layer in layers]
        found = [storage for storage in storages if storage is not None]
        if len(found) < len(layers) or len({storage.values.dtype for storage in found}) != 1:
            return None
        tensors = [tensor for storage in found for tensor in storage.written]
        scored = found[0].values.dtype if by_gradient else torch.float32
        held = self._held
        if held is None or not held.tensors.are(tensors) or (held.scored, held.team) != (scored, threads()):
            if not all(storage.fits() for storage in found):
                return None
            held = self._held = HeldLayers(tensors, found, scored)
        return held

    def __getstate__(self) -> dict[str, Any]:
        return {"_held": None}  # found again where needed


def is_known(
    layers: Sequence[SparseLinear],
    update: Update,
    drop_fraction: float,
    gradients: Mapping[SparseLinear, Gradient] | None,
) -> bool:
    """Tell whether kernels know a rule, and there is what it asks for, of layers of which none is given twice."""
    by_gradient = update.grow_score is gradient_magnitude
    known = update.keep_score is magnitude and update.choose is prune_and_regrow and update.regrow_dropped
    known = known and (by_gradient or update.grow_score is uniform_random) and update.conserves and update.only is None
    if not known or not 0 < drop_fraction <= 1 or len(set(layers)) < len(layers):
        return False
    return not by_gradient or (gradients is not None and all(layer in gradients for layer in layers))


def storage_of(layer: SparseLinear, optimizer: torch.optim.Optimizer | None) -> Storage | None:
    """Return what a move rewrites of a layer and of its optimizer state, or None where kernels cannot."""
    if not isinstance(layer, CsrBothWays):
        return None
    return layer.rewritten(list(slots_of(layer, optimizer).values()))


def slots_of(layer: SparseLinear, optimizer: torch.optim.Optimizer | None) -> dict[str, Tensor]:
    """Return what an optimizer holds of a layer's values, in their shape."""
    values = layer._parameters.get("values")  # noqa: SLF001  # others are refused by whoever moves them
    if optimizer is None or values is None:
        return {}
    state = optimizer.state.get(values, {})
    return {name: one for name, one in state.items() if isinstance(one, Tensor) and one.shape == values.shape}
