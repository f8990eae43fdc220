"""Move layers, with their optimizer state, to the masks that an update rule chooses."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from sparse_models.errors import InputError, checked
from sparse_models.kernels.asynchronous import is_captured
from sparse_models.kernels.cpu.chain._factors import Gradient, dense_of
from sparse_models.layers import SparseLinear
from sparse_models.layers._checks import check_move, check_own, share_memory
from sparse_models.masks.units import divides
from sparse_models.updates._by_kernels.on_cpu import Moves, slots_of
from sparse_models.updates._by_kernels.on_gpu import moved_on_gpu
from sparse_models.updates._rule import Update


@contextmanager
@checked
def dense_gradients(layers: Iterable[SparseLinear]) -> Iterator[dict[SparseLinear, Tensor]]:
    """Add up, over the backward passes inside, each layer's weight gradient at every position, kept or not [out, in].

    It is computed from the layer's input and output gradient, so it serves layers that never form it themselves.
    """
    gradients: dict[SparseLinear, Tensor] = {}

    def watch(layer: torch.nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x = torch.atleast_2d(inputs[0].detach())

        def collect(grad: Tensor) -> None:
            assert isinstance(layer, SparseLinear)
            found = torch.atleast_2d(grad).flatten(0, -2).t() @ x.flatten(0, -2)  # [out, batch] @ [batch, in]
            gradients[layer] = gradients.get(layer, 0) + found

        if output.requires_grad:
            output.register_hook(collect)

    handles = [layer.register_forward_hook(watch) for layer in layers]
    try:
        yield gradients
    finally:
        for handle in handles:
            handle.remove()


def kept_gradients(layers: Iterable[SparseLinear]) -> dict[SparseLinear, Tensor]:
    """Return each layer's weight gradient [out, in] of the last backward pass at the kept weights, 0 elsewhere."""
    return {layer: layer.unpack(layer.values.grad) for layer in layers if layer.values.grad is not None}


class Move(NamedTuple):
    """A layer, the mask [out, in] it is to move to, and how many weights that keeps, where it is known."""

    layer: SparseLinear
    mask: Tensor
    nnz: int | None = None


@checked
def move_mask(
    layer: SparseLinear, mask: Tensor, optimizer: torch.optim.Optimizer | None = None, *, in_place: bool = False
) -> None:
    """Move `layer` to `mask` [out, in]; weights under both masks keep value and optimizer state, grown ones start at 0.

    `in_place` is that of `SparseLinear.move`.
    """
    move_masks([Move(layer, mask)], optimizer, in_place=in_place)


@torch.no_grad()
def move_masks(moves: Sequence[Move], optimizer: torch.optim.Optimizer | None = None, *, in_place: bool = False) -> None:
    """Move layers as `move_mask` moves one; raises InputError, before the first moves, where one of them cannot."""
    check_own(_held([layer for layer, _, _ in moves], optimizer), in_place=in_place)
    _move(moves, optimizer, in_place=in_place)


def _held(layers: Sequence[SparseLinear], optimizer: torch.optim.Optimizer | None) -> dict[SparseLinear, list[Tensor]]:
    """Return what an optimizer holds of each layer's values."""
    return {layer: list(slots_of(layer, optimizer).values()) for layer in layers}


def _move(moves: Sequence[Move], optimizer: torch.optim.Optimizer | None, *, in_place: bool) -> None:
    """Move layers whose values are their own."""
    counts = [check_move(*move, in_place=in_place) for move in moves]
    for (layer, mask, _), nnz in zip(moves, counts, strict=True):
        slots = slots_of(layer, optimizer)
        moved = layer.move(mask, list(slots.values()), nnz=nnz, in_place=in_place, ask=False)
        if optimizer is not None and slots:
            optimizer.state[layer.values].update(zip(slots, moved, strict=True))


@torch.no_grad()
@checked
def update_masks(
    layers: Iterable[SparseLinear],
    update: Update,
    drop_fraction: float,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    gradients: Mapping[SparseLinear, Gradient] | None = None,
    generator: torch.Generator | None = None,
    in_place: bool | None = False,
    moves: Moves | None = None,
    sparsities: Sequence[float] | None = None,
) -> None:
    """Let `update` choose the next mask of each layer and move the layer and its optimizer state there.

    A rule whose number of weights follows a schedule is told by `sparsities` how sparse each layer is to be then.

    On a GPU weights are grown at random by the generator given, or by the device's own: others than a CPU's generator of the
    same seed would choose. A CUDA graph may hold the whole update, called once before, with a generator that is the device's
    own or registered with the graph: each replay moves as many weights as the first, and no NaN is refused, as it cannot be
    asked for. While it is captured, and with `in_place`, layers and optimizer state keep their memory, so that a captured
    training step stays valid; a graph of autograd from before then refuses its backward pass. With None for `in_place` they do
    where that can be: where as many weights are kept, in memory that no other layer has. With `moves` they keep it, too,
    where kernels of a CPU do the whole update, in a small part of the time: a `state_dict` from before then changes as it does
    by an optimizer's step. Where another layer shares that memory, each moves to its own.
    """
    layers = list(layers)
    if moves is not None and moves.take(layers, update, drop_fraction, optimizer, gradients, generator):
        return
    moving, is_own = _held(layers, optimizer), False
    if in_place is None:
        conserves = update.conserves and all(divides(one.pattern.unit, (one.out_features, one.in_features)) for one in layers)
        in_place = is_own = conserves and not share_memory(moving)
    check_own(moving, in_place=in_place and not is_own)
    if sparsities is None and moved_on_gpu(layers, update, drop_fraction, optimizer, gradients, generator, in_place=in_place):
        return
    dense = None if gradients is None else {layer: dense_of(gradient) for layer, gradient in gradients.items()}
    targets: Sequence[float | None] = [None] * len(layers) if sparsities is None else sparsities
    grown: Sequence[int | None] = [None] * len(layers)
    if update.share is not None:
        if dense is None or any(layer not in dense for layer in layers):
            raise InputError(f"{update.name}: expected the gradient of every weight, got None; collect it by `dense_gradients`")
        if is_captured(layers[0].values):
            raise InputError(
                f"{update.name}: expected no CUDA graph to be captured, as the number of weights may change; move masks outside"
            )
        grown = update.share([layer.mask for layer in layers], [dense[layer] for layer in layers], drop_fraction)
    chosen = []
    for layer, target, count in zip(layers, targets, grown, strict=True):
        grad = None if dense is None else dense.get(layer)
        nnz: int | None = layer.nnz_as_set
        mask = update(
            layer.mask, layer.to_dense(), grad, drop_fraction, generator, nnz,
            pattern=layer.pattern, sparsity=target, grown=count,
        )  # fmt: skip
        if not (update.conserves and divides(layer.pattern.unit, mask.shape)):
            nnz = None  # of as many blocks, too, those at the edges hold fewer weights
        chosen.append(Move(layer, mask, nnz))
    _move(chosen, optimizer, in_place=in_place)


@torch.no_grad()
def rewind(
    layers: Iterable[SparseLinear], weights: Iterable[tuple[Tensor, Tensor | None]], optimizer: torch.optim.Optimizer
) -> None:
    """Set kept weights and biases back to earlier ones, (weight [out, in], bias [out]) a layer, and forget optimizer state."""
    for layer, (weight, bias) in zip(layers, weights, strict=True):
        layer.values.copy_(layer.pack(weight))
        if layer.bias is not None and bias is not None:
            layer.bias.copy_(bias)
    optimizer.state.clear()
