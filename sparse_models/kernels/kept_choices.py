"""Choices of variants between runs: one file for each machine, beside the compiled code."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparse_models.kernels.cpu._compile import machine
from sparse_models.kernels.kept_code import cache_folder, replace
from sparse_models.kernels.variant import Choice, Variant

MEANING = 3  # of what is in a file: another number wherever older choices no longer hold, as for kernels that are written anew


def _told() -> dict[str, Any]:
    """Return what choices hold for: this machine, and variants of these fields."""
    return {"machine": [*machine(), os.cpu_count()], "meaning": MEANING, "fields": list(Variant._fields)}


def path() -> Path:
    """Return the file of this machine's choices."""
    return cache_folder() / f"choices-{hashlib.sha256(json.dumps(_told()).encode()).hexdigest()[:12]}.json"


def read() -> dict[str, Choice]:
    """Return this machine's choices by the class of their works; none where there is no file, or not one of this machine."""
    try:
        held = json.loads(path().read_bytes())
        return {name: Choice.of(plain) for name, plain in held["choices"].items()} if held["told"] == _told() else {}
    except (AttributeError, KeyError, OSError, TypeError, ValueError):
        return {}


def write(choices: Mapping[str, Choice]) -> None:
    """Keep choices in the file, beside those of other classes; where that cannot be, the next run measures again."""
    kept = {name: choice.plain() for name, choice in {**read(), **choices}.items()}
    replace(path(), json.dumps({"told": _told(), "choices": kept}).encode())
