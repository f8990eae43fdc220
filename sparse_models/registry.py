"""LAYERS and UPDATES: the two tables that tests, benchmarks and result tables iterate over."""

import importlib
import pkgutil
from collections.abc import Callable, Collection, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

from sparse_models.errors import AbsentError, InputError

if TYPE_CHECKING:
    from sparse_models.layers import SparseLinear
    from sparse_models.updates import Update

LAYERS: dict[str, "type[SparseLinear]"] = {}
UPDATES: dict[str, "Update"] = {}
ABSENT: dict[str, str] = {}  # what to do about each layer whose package cannot be imported

_Entry = TypeVar("_Entry")
_LayerClass = TypeVar("_LayerClass", bound="type[SparseLinear]")


def register_layer(name: str) -> Callable[[_LayerClass], _LayerClass]:
    """Return a class decorator that enters a layer under `name`; raises InputError if the name is taken."""

    def register(layer: _LayerClass) -> _LayerClass:
        _refuse_taken(LAYERS, name)
        LAYERS[name] = layer
        return layer

    return register


def register_update(update: "Update") -> "Update":
    """Enter an update rule under its own name and return it; raises InputError if the name is taken."""
    _refuse_taken(UPDATES, update.name)
    UPDATES[update.name] = update
    return update


def _refuse_taken(table: Mapping[str, object], name: str) -> None:
    if name in table:
        raise InputError(f"expected a new name, got {name!r}, which {table[name]!r} has already; choose another")


def lookup(table: Mapping[str, _Entry], name: str, kind: str) -> _Entry:
    """Return the entry of `table` under `name`; raise InputError naming the known ones otherwise."""
    if name not in table:
        raise unknown(sorted(table), name, kind)
    return table[name]


def unknown(known: Collection[str], name: str, kind: str) -> InputError:
    """Return the error that says which names are known, and what to install where that would make `name` one of them."""
    advice = ABSENT.get(name, "check the spelling")
    return InputError(f"expected a known {kind} ({', '.join(known)}), got {name!r}; {advice}")


def import_all(package: ModuleType) -> None:
    """Import every public module of `package`, so that a file dropped into it registers what it defines, or is absent."""
    for module in pkgutil.iter_modules(package.__path__):
        if not module.name.startswith("_"):
            try:
                importlib.import_module(f"{package.__name__}.{module.name}")
            except AbsentError as error:
                ABSENT[module.name] = str(error)
