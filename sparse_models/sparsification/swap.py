"""Any module in: its dense layers are exchanged for sparse ones in place, and back."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from sparse_models.errors import InputError, checked
from sparse_models.layers import LAYERS, SparseLinear
from sparse_models.linear import parameter_of, pruned_mask
from sparse_models.masks import DISTRIBUTIONS
from sparse_models.models import MLP
from sparse_models.sparsification.choice import CRITERIA, choose
from sparse_models.sparsification.convolution import SparseConv2d
from sparse_models.sparsification.fast_path import fit_fast_path
from sparse_models.sparsification.optimizer_state import check_state, exchange
from sparse_models.sparsification.places import Place, Wanted, candidates, places
from sparse_models.sparsification.sequential import fit_sequences

_Module = TypeVar("_Module", bound=nn.Module)


class Swap(NamedTuple):
    """A module that is to take the place of another wherever that stands, and how the weight of one becomes the other's."""

    places: Sequence[Place]
    module: nn.Module
    old: nn.Parameter
    new: nn.Parameter
    converted: Callable[[Tensor], Tensor]


@checked
def sparsify(
    model: _Module,
    layer: str | type[SparseLinear] = "tiled",
    *,
    sparsity: float | None = None,
    names: str | Sequence[str] | None = None,
    types: type[nn.Module] | tuple[type[nn.Module], ...] = nn.Linear,
    least: int = 0,
    distribution: str = "uniform",
    by: str = "magnitude",
    masks: Mapping[str, Tensor] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    generator: torch.Generator | None = None,
) -> _Module:
    """Exchange dense layers anywhere in a module, in place, for those of `layer`, a name in LAYERS or a class; return it.

    Replaced are layers whose name matches `names`, full names or patterns as of a shell, which are of `types` (nn.Linear,
    nn.Conv2d) and have `least` weights or more. They keep 1 - `sparsity` of their weights, shared out by `distribution`, a name
    in DISTRIBUTIONS, and chosen `by` magnitude, magnitude in all layers (global) or at random. `masks` by full name, bool or of
    zeros and ones, and those of `torch.nn.utils.prune` come before that; without a sparsity, layers with such a mask alone are
    replaced. A module that stands in two places becomes one sparse layer in both; biases stay the same parameters.

    With `optimizer`, the values of a layer take the place of its weight there, with the moments of the kept weights. What
    cannot be replaced (tied weights, layers of nn.MultiheadAttention, hooks, grouped convolutions) is left out with a warning
    or, where it is named in full, refused. Raises InputError before anything is changed.
    """
    layer_class = LAYERS.find(layer) if isinstance(layer, str) else layer
    patterns = [names] if isinstance(names, str) else names
    given = dict(masks or {})
    kinds = types if isinstance(types, tuple) else (types,)
    found, left_out = candidates(model, Wanted(patterns, kinds, least), given)
    chosen: dict[nn.Module, Tensor | None] = {
        module: next((given[place.name] for place in own if place.name in given), None) for module, own in found.items()
    }
    free = [module for module, mask in chosen.items() if mask is None and pruned_mask(module) is None]
    if sparsity is None:
        chosen = {module: mask for module, mask in chosen.items() if module not in free}
    else:
        chosen |= _masks(free, layer_class, sparsity, distribution, by, generator)
    if not chosen:
        what = "layers" if sparsity is not None else "a sparsity, masks, or layers that torch.nn.utils.prune has pruned,"
        raise InputError(
            f"expected {what} to be replaced, got none{'; '.join(['', *left_out])}; look at names, types and least"
        )
    swaps = [_sparse(layer_class, module, mask, found[module]) for module, mask in chosen.items()]
    _carry_out(model, swaps, optimizer)
    if left_out and sparsity is not None:
        warnings.warn(f"left dense: {'; '.join(left_out)}", stacklevel=2)
    return model


@checked
def densify(model: _Module, *, optimizer: torch.optim.Optimizer | None = None) -> _Module:
    """Exchange all sparse layers in a module, in place, for dense ones with zeros outside the masks; return it.

    With `optimizer`, weights take the place of values there, with moments that are 0 outside the masks. Raises InputError,
    before anything is changed, for hooks, and for an MLP of this package, which holds sparse layers alone.
    """
    if isinstance(model, SparseLinear | SparseConv2d):
        raise InputError(f"expected a module that holds layers, got a {type(model).__name__} itself; call to_linear or to_conv")
    if any(isinstance(module, MLP) for module in model.modules()):
        raise InputError("expected a module of torch.nn, got an MLP of sparse layers; build it by dense_mlp")
    found = places(model, (SparseLinear, SparseConv2d))
    swaps = [
        _dense(module, own) for module, own in found.items() if not any(isinstance(one.parent, SparseConv2d) for one in own)
    ]
    _carry_out(model, swaps, optimizer)
    return model


def _masks(
    modules: Sequence[nn.Module],
    layer_class: type[SparseLinear],
    sparsity: float,
    distribution: str,
    by: str,
    generator: torch.Generator | None,
) -> dict[nn.Module, Tensor]:
    """Return for each dense layer the mask [of its weight's shape] by its weights."""
    criterion, weights = CRITERIA.find(by), [parameter_of(module) for module in modules]
    sparsities = DISTRIBUTIONS.find(distribution)([weight.shape for weight in weights], sparsity)
    if not modules:
        return {}
    scores = [criterion.score(weight.flatten(1), generator) for weight in weights]
    chosen = choose(scores, [layer_class.pattern] * len(scores), sparsities, together=criterion.together)
    return {module: mask.view(weight.shape) for module, mask, weight in zip(modules, chosen, weights, strict=True)}


def _sparse(layer_class: type[SparseLinear], module: nn.Module, mask: Tensor | None, own: Sequence[Place]) -> Swap:
    """Return the exchange of a dense layer for a sparse one."""
    old = parameter_of(module)
    try:
        if isinstance(module, nn.Conv2d):
            conv = SparseConv2d.from_conv(layer_class, module, mask)
            made, linear = conv, conv.linear
        else:
            assert isinstance(module, nn.Linear)
            made = linear = layer_class.from_linear(module, mask)  # type: ignore[assignment]
    except InputError as error:
        raise InputError(f"{own[0].name}: {error}") from error
    linear.bias = module.bias  # type: ignore[assignment]  # the same parameter, so that nothing that holds it needs to follow
    return Swap(own, made, old, linear.values, lambda held: linear.pack(held.flatten(1)))


def _dense(module: nn.Module, own: Sequence[Place]) -> Swap:
    """Return the exchange of a sparse layer for a dense one."""
    try:
        if isinstance(module, SparseConv2d):
            linear, made = module.linear, module.to_conv()
            assert isinstance(made, nn.Conv2d)
        else:
            assert isinstance(module, SparseLinear)
            linear, made = module, module.to_linear()  # type: ignore[assignment]
    except InputError as error:
        raise InputError(f"{own[0].name}: {error}") from error
    made.bias = linear.bias
    return Swap(own, made, linear.values, parameter_of(made), lambda held: linear.unpack(held).view(made.weight.shape))


@torch.no_grad()
def _carry_out(model: nn.Module, swaps: Sequence[Swap], optimizer: torch.optim.Optimizer | None) -> None:
    """Exchange modules and, in the optimizer, parameters, once all of that can be done."""
    if optimizer is not None:
        for swap in swaps:
            check_state(optimizer, swap.old, swap.places[0].name)
    for swap in swaps:
        for place in swap.places:
            place.put(swap.module)
        if optimizer is not None:
            exchange(optimizer, swap.old, swap.new, swap.converted)
    fit_fast_path(model)
    fit_sequences(model)
