"""Where users find the two tables that tests, benchmarks and result tables iterate over; each lives with what it holds.

A name is looked up when it is asked for, and not before: a file dropped into `layers` or `updates` may import from here while
the package that it is in is being imported.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparse_models.layers import LAYERS, register_layer
    from sparse_models.updates import UPDATES, register_update

    ABSENT: dict[str, str]

__all__ = ["ABSENT", "LAYERS", "UPDATES", "register_layer", "register_update"]


def __getattr__(name: str) -> Any:
    """Return one of the public names from where it lives."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    layers, updates = (importlib.import_module(f"sparse_models.{home}") for home in ("layers", "updates"))
    if name == "ABSENT":  # what to do about each entry that needs a package which cannot be imported
        return layers.LAYERS.absent | updates.UPDATES.absent
    return getattr(updates if "update" in name.lower() else layers, name)
