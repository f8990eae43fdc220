"""The OpenMP runtime that torch has loaded, and of it what kernels call."""

import contextlib
import ctypes
import os
import re
from functools import cache
from pathlib import Path

import torch

BARRIER = "sparse_models_barrier"  # the name by which kernels call it


@cache
def openmp() -> ctypes.CDLL | None:
    """Return the OpenMP runtime in this process, GNU's, LLVM's or Intel's, which all have GNU's functions; None without."""
    folder = Path(torch.__file__).parent / "lib"
    found = [path for path in sorted(folder.iterdir()) if re.match(r"lib(gomp|omp|iomp5)\b", path.name)]
    for name in [*(str(path) for path in found), None]:
        try:
            library = ctypes.CDLL(name)
            parallel = library.GOMP_parallel
        except (OSError, AttributeError):
            continue
        parallel.argtypes, parallel.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint], None
        return library
    return None


@cache
def barrier_address() -> int:
    """Return the address of the function at which a team's threads wait for one another as at its end; 0 without a runtime."""
    library = openmp()
    return 0 if library is None else int(ctypes.cast(library.GOMP_barrier, ctypes.c_void_p).value or 0)


def _let_team_go() -> None:
    """End the team of this thread, which the next call makes anew."""
    library = openmp()
    with contextlib.suppress(AttributeError):  # a runtime from before OpenMP 5.0
        if library is not None:
            library.omp_pause_resource_all(1)  # omp_pause_soft


# A forked process has none of the team's threads, and GNU's runtime would wait for them for ever: for kernels and for torch.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_let_team_go)
