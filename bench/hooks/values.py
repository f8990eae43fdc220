"""What an option's text means: names, numbers and devices; bad input is one sentence."""

import math
import os
import re
from collections.abc import Callable, Collection

import torch

from bench.machine.facts import quota_cores
from bench.runs.saved import MAX_PROCESSES
from sparse_models.data import DATA
from sparse_models.errors import InputError
from sparse_models.loading import FORMS, is_own, load
from sparse_models.table import Table, unknown


def one_of(kind: str, known: Collection[str]) -> Callable[[str], str]:
    """Return what takes one of the known names of a kind; it raises InputError, which names those alike, for any other."""

    def check(text: str) -> str:
        if text not in known:
            raise unknown(known, text, kind, known.absent.get(text) if isinstance(known, Table) else None)
        return text

    return check


def data_set(text: str) -> str:
    """Return the name of a data set, whose samples can be loaded; raises InputError for any other, and as `load` does."""
    if text not in DATA and not is_own(text):
        raise unknown((*DATA, *FORMS), text, "data set", DATA.absent.get(text))
    if is_own(text):
        load(text)  # lest it fail in every case
    return text


def device(text: str) -> str:
    """Return cpu or cuda, auto being cuda where PyTorch can use one; raises InputError for anything else."""
    if text == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if text not in ("cpu", "cuda"):
        raise InputError(f"expected cpu, cuda or auto, got {text!r}; check the spelling")
    if text == "cuda" and not torch.cuda.is_available():
        raise InputError("expected a CUDA device, got none that PyTorch can use on this machine; use --device cpu or auto")
    return text


def whole(text: str, most: int = 999_999) -> int:
    """Return a whole number from 1 to `most`; raises InputError, one sentence, for anything else."""
    if not re.fullmatch(r"\d{1,6}", text) or not 1 <= int(text) <= most:
        raise InputError(f"expected a whole number from 1 to {most}, got {text!r}; for example 3")
    return int(text)


def replications(text: str) -> int:
    """Return a number of processes or seeds; raises InputError for more than can be read back, and for what is none."""
    return whole(text, MAX_PROCESSES)


def skew(text: str) -> float:
    """Return a number of at least 0; raises InputError for anything else."""
    return 0.0 if text == "0" else positive(text)


def positive(text: str) -> float:
    """Return a finite number above 0; raises InputError, one sentence, for anything else."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise InputError(f"expected a number above 0, got {text!r}; for example 0.05")
    return value


def threads(text: str | None) -> int:
    """Return a number of threads; raises InputError for more than there are cores.

    Where none is given it is PyTorch's own, or what a container's quota of CPU time allows if that is fewer: threads beyond it
    would wait for one another.
    """
    if text is None:
        own, quota = torch.get_num_threads(), quota_cores()
        return own if quota is None else min(own, max(1, int(quota)))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if whole(text) > cores:
        raise InputError(f"expected at most {cores} threads, one for each core this process may use, got {text}; ask for fewer")
    return int(text)
