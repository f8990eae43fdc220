"""A table of named entries, such as all layers: what others iterate over, and what a file enters itself into."""

import difflib
import importlib
import pkgutil
from collections.abc import Collection
from types import ModuleType
from typing import TypeVar

from sparse_models.errors import AbsentError, InputError

_Entry = TypeVar("_Entry")


class Table(dict[str, _Entry]):
    """Entries by name, each name once; `absent` says what to do about each that needs a package which cannot be imported."""

    def __init__(self, kind: str) -> None:
        """Start empty; `kind` is what messages call an entry."""
        super().__init__()
        self.kind = kind
        self.absent: dict[str, str] = {}

    def enter(self, name: str, entry: _Entry) -> None:
        """Enter an entry; raises InputError if the name is taken."""
        if name in self:
            raise InputError(f"expected a new name, got {name!r}, which {self[name]!r} has already; choose another")
        self[name] = entry

    def find(self, name: str) -> _Entry:
        """Return the entry of this name; raises InputError naming the known ones if there is none."""
        if not isinstance(name, str) or name not in self:
            raise unknown(sorted(self), str(name), self.kind, self.absent.get(str(name)))
        return self[name]

    def import_all(self, package: ModuleType) -> None:
        """Import every public module of `package`, so that a file dropped into it enters what it defines, or is absent."""
        for module in pkgutil.iter_modules(package.__path__):
            if not module.name.startswith("_"):
                try:
                    importlib.import_module(f"{package.__name__}.{module.name}")
                except AbsentError as error:
                    self.absent[module.name] = str(error)


def unknown(known: Collection[str], name: str, kind: str, advice: str | None = None) -> InputError:
    """Return the error that says which names are known, and what to do where that would make `name` one of them."""
    if advice is None:
        near = difflib.get_close_matches(name, known, n=1)
        advice = f"did you mean {near[0]}?" if near else "nothing like it is here"
    return InputError(f"expected a known {kind} ({', '.join(known)}), got {name!r}; {advice}")
