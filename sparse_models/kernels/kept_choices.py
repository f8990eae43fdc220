"""Choices of variants between runs: one file for each machine, beside the compiled code."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sparse_models.kept_code import cache_folder, replace
from sparse_models.kernels.cpu._compile import machine
from sparse_models.kernels.variant import Variant

MEANING = 1  # of what is in a file: another number wherever older choices no longer hold, as for kernels that are written anew


class Choice(NamedTuple):
    """The variant that is fastest, each that was tried with its time over that of the first, and the seconds that it took."""

    variant: Variant
    tried: dict[Variant, float]
    seconds: float

    @property
    def gain(self) -> float:
        """How many times as fast as the first variant the fastest is."""
        return 1 / self.tried[self.variant]

    def plain(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        tried = [[*variant, time] for variant, time in self.tried.items()]
        return {"variant": list(self.variant), "tried": tried, "seconds": self.seconds}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "Choice":
        """Return what `plain` gave; raises KeyError, TypeError or ValueError for anything else."""
        tried = {_variant(numbers): float(time) for *numbers, time in plain["tried"]}
        variant = _variant(plain["variant"])
        if variant not in tried:
            raise ValueError("a choice that was not tried")
        return cls(variant, tried, float(plain["seconds"]))


def _variant(numbers: Any) -> Variant:
    variant = Variant(*map(int, numbers))
    if min(variant.together, variant.vector_bytes, variant.threads, variant.vectors + 1) < 1:
        raise ValueError("numbers that no variant has")
    return variant


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
