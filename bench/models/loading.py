"""The name of a function of the user's in, the module and the example batch that it returns out.

What is asked for wrongly is told in one sentence; where the user's code raises, its own traceback is shown, without our part.
"""

import copy
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from sparse_models.errors import InputError
from sparse_models.linear import mask_of, pruned_mask
from sparse_models.sparsification.places import DENSE
from sparse_models.table import unknown

FORM = "package.module:function"
SEED = 0  # of PyTorch's generators as the function is called, so that every process of a run has the same weights


class Example(NamedTuple):
    """A module, and the tensors that `module(*batch)` takes; the first dimension of the first is the samples.

    Of layers that `torch.nn.utils.prune` pruned, `masks` has the masks by name, and the module is dense with zeros.
    """

    module: nn.Module
    batch: tuple[Tensor, ...]
    masks: Mapping[str, Tensor] = MappingProxyType({})  # [out, in], bool

    @property
    def samples(self) -> int:
        """The number of samples."""
        return self.batch[0].shape[0]

    @property
    def copied(self) -> "Example":
        """The same with a copy of the module."""
        return self._replace(module=copy.deepcopy(self.module))

    def placed(self, device: str, dtype: torch.dtype) -> "Example":
        """Return a copy on a device, floating-point numbers in a dtype."""
        batch = tuple(part.to(device, dtype) if part.is_floating_point() else part.to(device) for part in self.batch)
        return self._replace(module=copy.deepcopy(self.module).to(device, dtype), batch=batch)


def load(reference: str) -> Example:
    """Return what the function named as package.module:function or path/to/file.py:function returns, called once a process.

    Modules are looked for in the working directory first. PyTorch's generators are seeded by SEED. Raises InputError for what
    there is not, for anything else than a module and a tensor or a tuple of tensors, and for what the user's code raises.
    """
    return _load(reference, str(Path.cwd()))


@lru_cache(maxsize=4)
def _load(reference: str, folder: str) -> Example:
    _make_importable(folder)
    function = _function(reference)
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise InputError(
            f"expected {reference} to take no arguments, got a function with some ({error}); give them values by default"
        ) from None
    except ValueError:  # of what is not written in Python nothing is known
        pass
    with theirs(f"{reference} raised"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        made = function()
    example = _checked(reference, made)
    with theirs(f"{reference} returned a module that copy.deepcopy cannot copy:"):
        copy.deepcopy(example.module)
    return example


@contextmanager
def theirs(what: str) -> Iterator[None]:
    """Raise InputError where code of the user's raises: what happened, and the user's part of the traceback.

    What it warns of is told, and is no error, as pytest would have it here.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            yield
    except (Exception, SystemExit) as error:
        raise InputError(f"{what} {type(error).__name__}:\n{_traceback(error)}") from None


def _traceback(error: BaseException) -> str:
    """Return the traceback of an error without frames of ours, of the import system, and of torch where it calls a module."""
    told = traceback.TracebackException.from_exception(error)
    passed = (
        "<frozen importlib",
        f"{Path(__file__).parent}{os.sep}",
        importlib.__file__,
        str(inspect.getsourcefile(nn.Module)),
    )
    told.stack[:] = [frame for frame in told.stack if not frame.filename.startswith(passed)]
    return "".join(told.format()).rstrip()


def _make_importable(folder: str) -> None:
    if folder not in sys.path:
        sys.path.insert(0, folder)


def _function(reference: str) -> Callable[[], Any]:
    place, _, name = reference.rpartition(":")
    is_file = place.endswith(".py")
    if not name.isidentifier() or not (is_file or all(part.isidentifier() for part in place.split("."))):
        raise InputError(
            f"expected {FORM} or path/to/file.py:function, got {reference!r}; for example examples/own_mlp.py:model"
        )
    module = _from_file(Path(place), reference) if is_file else _from_name(place, reference)
    function = getattr(module, name, None)
    if function is None:
        own = [key for key, value in vars(module).items() if inspect.isfunction(value) and value.__module__ == module.__name__]
        raise unknown(own, name, f"function of {place}")
    if not callable(function):
        raise InputError(f"expected a function, got {reference}, which is of type {type(function).__name__}; name another")
    return function  # type: ignore[no-any-return]


def _from_file(path: Path, reference: str) -> Any:
    if not path.is_file():
        raise InputError(f"expected a file at {path}, got none; check the path, from the working directory")
    _make_importable(str(path.resolve().parent))  # as Python does for a script
    name = f"_of_the_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    with theirs(f"{reference}: importing {path} raised"):
        spec.loader.exec_module(module)
    return module


def _from_name(name: str, reference: str) -> Any:
    with theirs(f"{reference}: importing {name} raised"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            missing = error.name
            if missing is None or not f"{name}.".startswith(f"{missing}."):
                raise
    raise InputError(
        f"expected a module {name} that can be imported, got none of the name {missing}; start where it lies, or name a file"
    )


def _kind(batch: Any) -> str:
    """Return what an example batch is, with what stands in it."""
    if not isinstance(batch, tuple | list):
        return type(batch).__name__
    inner = ", ".join(dict.fromkeys(type(part).__name__ for part in batch))
    return f"{type(batch).__name__} of {inner}" if inner else f"an empty {type(batch).__name__}"


def _checked(reference: str, made: Any) -> Example:
    is_pair = isinstance(made, tuple | list) and len(made) == 2
    module, batch = made if is_pair else (made, None)
    parts = (batch,) if isinstance(batch, Tensor) else tuple(batch) if isinstance(batch, tuple | list) else ()
    if not isinstance(module, nn.Module) or not parts or not all(isinstance(part, Tensor) for part in parts):
        got = f"{type(module).__name__} and {_kind(batch)}" if is_pair else type(made).__name__
        do = "return model, batch"
        if is_pair and isinstance(module, nn.Module):
            do = "wrap it in a module whose forward takes tensors, and makes of them what yours takes"
        raise InputError(
            f"expected {reference} to return a module and an example batch, a tensor or a tuple of tensors, got {got}; {do}"
        )
    if parts[0].dim() == 0 or parts[0].numel() == 0:
        raise InputError(
            f"expected an example batch whose first dimension is the samples, got one of shape {list(parts[0].shape)}; "
            "return at least one sample"
        )
    if any(nn.parameter.is_lazy(parameter) for parameter in module.parameters()):
        raise InputError(
            f"expected {reference} to return a module with weights, got lazy ones; call it on the batch once before"
        )
    return Example(module, parts, _without_pruning(module))


def _without_pruning(module: nn.Module) -> dict[str, Tensor]:
    """Make layers that `torch.nn.utils.prune` pruned dense ones with zeros, and return their masks by name."""
    pruned = {name: one for name, one in module.named_modules() if isinstance(one, DENSE) and pruned_mask(one) is not None}
    masks = {name: mask_of(one, None) for name, one in pruned.items()}
    for one in pruned.values():
        prune.remove(one, "weight")
    return masks
