"""A file of masks in, the masks of a network's layers out, by name: bool, checked against weights; and Python that reads it."""

import importlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sparse_models.errors import AbsentError, InputError
from sparse_models.linear import bool_mask, parameter_of
from sparse_models.table import unknown

WEIGHT = ".weight"  # at the end of a parameter's name


def read_masks(path: Path, layers: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Return by the layers' names the masks [of the weight's shape] of a .npz or .safetensors file, bool or of zeros and ones.

    An array has the name of a layer, as encoder.0, or of its weight, as encoder.0.weight. Raises InputError for a file that is
    none, for other names, shapes and numbers, and for a layer named twice; AbsentError where safetensors is not installed.
    """
    found: dict[str, Tensor] = {}
    for key, mask in _arrays(path).items():
        name = key.removesuffix(WEIGHT)
        if name not in layers:
            raise InputError(f"{path}: {unknown(list(layers), key, 'layer that can be sparse')}")
        other = next((one for one in found if layers[one] is layers[name]), None)
        if other is not None:
            raise InputError(f"{path}: expected one mask of a layer, got two of {other}, the other as {key}; leave one out")
        try:
            found[name] = bool_mask(mask, parameter_of(layers[name]))
        except InputError as error:
            raise InputError(f"{path}, {key}: {error}") from None
    if not found:
        raise InputError(f"{path}: expected masks by the names of layers, got an empty file; write them by numpy.savez")
    return found


def _arrays(path: Path) -> dict[str, Tensor]:
    reader = READERS.get(path.suffix)
    if reader is None:
        raise InputError(f"expected a file of masks ({', '.join(READERS)}), got {path}; write it by numpy.savez")
    if not path.is_file():
        raise InputError(f"expected a file at {path}, got none; check the path")
    try:
        return reader.read(path)
    except (AbsentError, InputError):
        raise
    except Exception as error:  # each reader raises errors of its own for what it cannot read
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"expected arrays in {path}, got none that can be read ({reason}); write it anew") from None


def _npz(path: Path) -> dict[str, Tensor]:
    np = importlib.import_module("numpy")  # torch does without it
    with np.load(path, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        package: Any = importlib.import_module("safetensors.torch")
    except ImportError:
        raise AbsentError(f"expected the package safetensors, which reads {path}, got none; pip install safetensors") from None
    return package.load_file(path)  # type: ignore[no-any-return]


class Reader(NamedTuple):
    """How the arrays of a file are read, and how that is written in Python: imports, the whole, and a mask of it."""

    read: Callable[[Path], dict[str, Tensor]]
    imports: str
    loaded: str
    mask: str


READERS = {
    ".npz": Reader(_npz, "import numpy\nimport torch", "numpy.load({})", "torch.from_numpy(mask)"),
    ".safetensors": Reader(_safetensors, "from safetensors.torch import load_file", "load_file({})", "mask"),
}


def reading_of(path: Path) -> tuple[str, str]:
    """Return the lines of Python that read a file of masks: imports, and `masks` by the names of layers."""
    reader = READERS[path.suffix]
    lines = [
        "masks = {",
        f'    name.removesuffix("{WEIGHT}"): {reader.mask}',
        f"    for name, mask in {reader.loaded.format(json.dumps(str(path), ensure_ascii=False))}.items()",
        "}",
    ]
    return reader.imports, "\n".join(lines)
