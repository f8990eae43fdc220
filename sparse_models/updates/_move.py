"""Move layers, with their optimizer state, to the masks that an update rule chooses."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from sparse_models.asynchronous import is_captured
from sparse_models.errors import InputError
from sparse_models.layers import SparseLinear
from sparse_models.masks.units import divides
from sparse_models.updates._rule import Update


@contextmanager
def dense_gradients(layers: Iterable[SparseLinear]) -> Iterator[dict[SparseLinear, Tensor]]:
    """Add up, over the backward passes inside, each layer's weight gradient at every position, kept or not [out, in].

    It is computed from the layer's input and output gradient, so it serves layers that never form it themselves.
    """
    gradients: dict[SparseLinear, Tensor] = {}

    def watch(layer: torch.nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x = torch.atleast_2d(inputs[0].detach())

        def collect(grad: Tensor) -> None:
            assert isinstance(layer, SparseLinear)
            gradients[layer] = gradients.get(layer, 0) + torch.atleast_2d(grad).flatten(0, -2).t() @ x.flatten(
                0, -2
            )  # [out, batch] @ [batch, in]

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


@torch.no_grad()
def move_mask(
    layer: SparseLinear,
    mask: Tensor,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    nnz: int | None = None,
    in_place: bool = False,
) -> None:
    """Move `layer` to `mask` [out, in]; weights under both masks keep value and optimizer state, grown ones start at 0.

    `nnz` and `in_place` are those of `SparseLinear.move`.
    """
    state = {} if optimizer is None else optimizer.state.get(layer.values, {})
    names = [name for name, value in state.items() if isinstance(value, Tensor) and value.shape == layer.values.shape]
    moved = layer.move(mask, [state[name] for name in names], nnz=nnz, in_place=in_place)
    state.update(zip(names, moved, strict=True))


@torch.no_grad()
def update_masks(
    layers: Iterable[SparseLinear],
    update: Update,
    drop_fraction: float,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    gradients: Mapping[SparseLinear, Tensor] | None = None,
    generator: torch.Generator | None = None,
    in_place: bool = False,
    sparsities: Sequence[float] | None = None,
) -> None:
    """Let `update` choose the next mask of each layer and move the layer and its optimizer state there.

    A rule whose number of weights follows a schedule is told by `sparsities` how sparse each layer is to be then.

    On a GPU weights are grown at random by the generator given, or by the device's own: others than a CPU's generator of the
    same seed would choose. A CUDA graph may hold the whole update, called once before, with a generator that is the device's
    own or registered with the graph: each replay moves as many weights as the first, and no NaN is refused, as it cannot be
    asked for. While it is captured, and with `in_place`, layers and optimizer state keep their memory, so that a captured
    training step stays valid; a graph of autograd from before then refuses its backward pass.
    """
    layers = list(layers)
    targets: Sequence[float | None] = [None] * len(layers) if sparsities is None else sparsities
    grown: Sequence[int | None] = [None] * len(layers)
    if update.share is not None:
        if gradients is None or any(layer not in gradients for layer in layers):
            raise InputError(f"{update.name}: expected the gradient of every weight, got None; collect it by `dense_gradients`")
        if is_captured(layers[0].values):
            raise InputError(
                f"{update.name}: expected no CUDA graph to be captured, as the number of weights may change; move masks outside"
            )
        grown = update.share([layer.mask for layer in layers], [gradients[layer] for layer in layers], drop_fraction)
    for layer, target, count in zip(layers, targets, grown, strict=True):
        grad = None if gradients is None else gradients.get(layer)
        nnz: int | None = layer.nnz_as_set
        mask = update(
            layer.mask, layer.to_dense(), grad, drop_fraction, generator, nnz,
            pattern=layer.pattern, sparsity=target, grown=count,
        )  # fmt: skip
        if not (update.conserves and divides(layer.pattern.unit, mask.shape)):
            nnz = None  # of as many blocks, too, those at the edges hold fewer weights
        move_mask(layer, mask, optimizer, nnz=nnz, in_place=in_place)


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
