"""Mask updates on a GPU by a few kernels of our own for each layer, where those know the rule and the layer."""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from sparse_models.kernels.asynchronous import is_captured
from sparse_models.kernels.cpu.chain._factors import Gradient
from sparse_models.kernels.cpu.moves._table import Storage
from sparse_models.kernels.cpu.moves.numbers import drawn_keys
from sparse_models.kernels.cuda.moves import moving
from sparse_models.kernels.cuda.moves.moving import NAN, Moving, Scores
from sparse_models.layers import SparseLinear
from sparse_models.layers._feature_major.both_ways import CsrBothWays
from sparse_models.linear import is_memory
from sparse_models.masks.top_k import count_kept, refuse_nan
from sparse_models.updates._by_kernels.on_cpu import is_known, slots_of, storage_of
from sparse_models.updates._rule import Update
from sparse_models.updates._scores import gradient_magnitude


def moved_on_gpu(
    layers: Sequence[SparseLinear],
    update: Update,
    drop_fraction: float,
    optimizer: torch.optim.Optimizer | None,
    gradients: Mapping[SparseLinear, Gradient] | None,
    generator: torch.Generator | None,
    *,
    in_place: bool,
) -> bool:
    """Do what `update_masks` does, in memory that is the layers' own; or nothing, and return False, where no kernel can.

    The host asks the device once, for all layers, whether there are NaN, before anything is changed, and not while a CUDA graph
    is captured. Raises InputError for NaN.
    """
    # What is made in inference mode counts no changes, by which a layer tells that its index is one.
    if not layers or torch.is_inference_mode_enabled() or not is_known(layers, update, drop_fraction, gradients):
        return False
    storages = [one for one in (storage_of(layer, optimizer) for layer in layers) if one is not None and moving.fits(one)]
    if len(storages) < len(layers) or len({one.values.device for one in storages}) > 1:
        return False
    scores = _scores(layers, storages, gradients if update.grow_score is gradient_magnitude else None, generator)
    if scores is None:
        return False
    first, states = storages[0].values, moving.new_states(len(layers), storages[0].values.device)
    works = list[Moving]()
    for storage, score, state in zip(storages, scores, states.unbind(), strict=True):
        number = storage.values.numel()
        works.append(Moving(storage, score, number - count_kept(number, drop_fraction), state))
    for work in works:
        work.choose()
    captured = is_captured(first)
    if not captured:
        refuse_nan(states[:, NAN])
    for layer, work in zip(layers, works, strict=True):
        _finish(cast("CsrBothWays", layer), work, optimizer, in_place=in_place or captured)
    grads = [layer.values.grad for layer in layers if layer.values.grad is not None]
    if grads:
        torch._foreach_zero_(grads)  # they belong to the old structure, and their memory may be a captured step's
    return True


def _scores(
    layers: Sequence[SparseLinear],
    storages: Sequence[Storage],
    gradients: Mapping[SparseLinear, Gradient] | None,
    generator: torch.Generator | None,
) -> list[Scores] | None:
    """Return what each layer is grown by: gradients or, without them, keys drawn by a generator; None where no kernel can."""
    on = storages[0].values.device
    if gradients is None:
        if generator is None or generator.device.type != "cpu":
            drawn_on = on if generator is None else generator.device
            keys = torch.randint(-(2**31), 2**31, (len(layers), 2), dtype=torch.int32, generator=generator, device=drawn_on)
            return [Scores(drawn=one) for one in keys.to(on).unbind()]
        # What a host drew would be the same at each replay.
        return None if is_captured(storages[0].values) else [Scores(keys=drawn_keys(generator)) for _ in layers]
    found = list[Scores]()
    for layer, storage in zip(layers, storages, strict=True):
        one = gradients[layer]
        if not (isinstance(one, Tensor) and is_memory(one) and one.shape == storage.shape):
            return None
        if one.device != on or one.dtype not in moving.KINDS:
            return None
        found.append(Scores(one.detach().contiguous()))  # of a negated view, too, magnitudes are what counts
    return found


def _finish(layer: CsrBothWays, work: Moving, optimizer: torch.optim.Optimizer | None, *, in_place: bool) -> None:
    """Have a layer and its optimizer state be as was chosen, in the memory that there is or in other."""
    before = work.storage
    if in_place:
        work.rebuild(before)
        increment_version(before.written)
        layer.reindex(before[:5])
        return
    index, slots = [torch.empty_like(one) for one in before[:5]], [torch.empty_like(slot) for slot in before.slots]
    after = Storage._make([*index, None, None, torch.empty_like(before.values.detach()), tuple(slots)])
    work.rebuild(after)
    layer.reindex(index)
    layer.hold(after.values)
    layer.values.grad = None
    if optimizer is not None and slots:
        optimizer.state[layer.values].update(zip(slots_of(layer, optimizer), slots, strict=True))
