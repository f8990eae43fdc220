"""A module in, its layers and where they stand out, with what keeps a layer from being replaced."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from torch import Tensor, nn

from sparse_models.errors import InputError, checked
from sparse_models.layers import SparseLinear
from sparse_models.linear import check_movable, check_plain, parameter_of
from sparse_models.sparsification.convolution import check_conv
from sparse_models.table import unknown

DENSE = (nn.Linear, nn.Conv2d)  # what can be replaced
WILD = frozenset("*?[")


class Place(NamedTuple):
    """Where a module stands: an attribute of another, and its name in the whole."""

    parent: nn.Module
    attribute: str
    name: str

    def put(self, module: nn.Module) -> None:
        """Put another module there."""
        self.parent._modules[self.attribute] = module  # noqa: SLF001  # as setattr does, which also takes names like "0"


def places(model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> dict[nn.Module, list[Place]]:
    """Return the modules of some kinds inside a model, in its order, each once with all its places."""
    found: dict[nn.Module, list[Place]] = {}
    for prefix, parent in model.named_modules():
        for attribute, child in parent._modules.items():  # noqa: SLF001  # named_children leaves out repeats
            if child is not None and isinstance(child, kinds):
                name = f"{prefix}.{attribute}" if prefix else attribute
                found.setdefault(child, []).append(Place(parent, attribute, name))
    return found


@checked
def sparse_layers(model: nn.Module) -> dict[str, SparseLinear]:
    """Return the sparse layers of any module by name, each once: what update rules take."""
    return {name: module for name, module in model.named_modules() if isinstance(module, SparseLinear)}


class Wanted(NamedTuple):
    """Which dense layers are to be replaced."""

    names: Sequence[str] | None  # patterns as of a shell, or exact names; None: all
    types: tuple[type[nn.Module], ...]
    least: int  # weights

    def matches(self, name: str) -> bool:
        """Tell whether a name is one of those."""
        return self.names is None or any(fnmatchcase(name, pattern) for pattern in self.names)

    def is_explicit(self, name: str) -> bool:
        """Tell whether a name is given in full."""
        return self.names is not None and any(pattern == name and not WILD & set(pattern) for pattern in self.names)


def candidates(model: nn.Module, wanted: Wanted, given: Mapping[str, object]) -> tuple[dict[nn.Module, list[Place]], list[str]]:
    """Return the dense layers to be replaced, and sentences on those left out, which were named by no full name.

    Raises InputError for a name that there is not, and for a layer named in full that cannot be replaced. `given` are the
    names in full of layers that are wanted whatever their type and size.
    """
    if isinstance(model, DENSE):
        raise InputError(
            f"expected a module that holds layers, got nn.{type(model).__name__} itself; call from_linear of a layer"
        )
    found = places(model, DENSE)
    known = [place.name for own in found.values() for place in own]
    _check_names(known, wanted, given)
    owners = _owners(model)
    chosen: dict[nn.Module, list[Place]] = {}
    left_out: dict[str, list[str]] = {}
    for module, own in found.items():
        explicit = next((place.name for place in own if place.name in given or wanted.is_explicit(place.name)), None)
        matches = any(wanted.matches(place.name) for place in own)
        fits = matches and isinstance(module, wanted.types) and _weights(module) >= wanted.least
        if explicit is None and not fits:
            continue
        reason = _why_not(module, own, owners)
        if reason is None:
            chosen[module] = own
        elif explicit is not None:
            raise InputError(f"{explicit}: {reason}")
        else:
            left_out.setdefault(reason, []).append(own[0].name)
    return chosen, [f"{', '.join(names)}: {reason}" for reason, names in left_out.items()]


def _weights(module: nn.Module) -> int:
    """Return the number of a dense layer's weights, 0 where there are none yet."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    return 0 if nn.parameter.is_lazy(weight) else weight.numel()


def _check_names(known: Sequence[str], wanted: Wanted, given: Mapping[str, object]) -> None:
    for name in given:
        if name not in known:
            raise unknown(known, name, "dense layer")
    for pattern in wanted.names or ():
        if not any(fnmatchcase(name, pattern) for name in known):
            raise unknown(known, pattern, "dense layer")


def _owners(model: nn.Module) -> dict[nn.Parameter, list[tuple[nn.Module, str]]]:
    """Return whose each parameter is, with its name there; who has it twice, is there twice."""
    owners: dict[nn.Parameter, list[tuple[nn.Module, str]]] = {}
    for prefix, module in model.named_modules():
        for name, parameter in module._parameters.items():  # noqa: SLF001  # named_parameters leaves out what is shared
            if parameter is not None:
                owners.setdefault(parameter, []).append((module, f"{prefix}.{name}" if prefix else name))
    return owners


def _why_not(
    module: nn.Module, own: Sequence[Place], owners: Mapping[nn.Parameter, Sequence[tuple[nn.Module, str]]]
) -> str | None:
    """Return what keeps a dense layer from being replaced; None where nothing does."""
    if any(isinstance(place.parent, nn.MultiheadAttention) for place in own):
        return "expected a layer that is called, got one of nn.MultiheadAttention, which reads its weight; leave it dense"
    try:
        if isinstance(module, nn.Conv2d):
            check_conv(module)
        else:
            check_plain(module, nn.Linear)
            check_movable(module)
    except InputError as error:
        return str(error)
    weight = parameter_of(module)
    if weight.is_meta:
        return "expected weights, got a tensor on the meta device, which has none; load them first"
    if weight._backward_hooks or weight._post_accumulate_grad_hooks:  # noqa: SLF001  # torch has no public name for them
        return "expected a weight without hooks of its own, got some; remove them, and register them on the `values` made of it"
    others = [name for owner, name in owners[weight] if owner is not module]
    if others:
        return f"expected a weight of its own, got one tied to {', '.join(others)}; leave it dense, or untie it"
    return None
