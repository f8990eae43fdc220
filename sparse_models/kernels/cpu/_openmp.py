"""The OpenMP runtime that torch has loaded, and of it what kernels call."""

import contextlib
import ctypes
import os
import re
from functools import cache
from pathlib import Path

import torch

BARRIER, THREAD = "sparse_models_barrier", "sparse_models_thread"  # the names by which kernels call its functions


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
def addresses() -> dict[str, int]:
    """Return the addresses of what kernels call: the barrier, and what tells a thread's number in its team; none without."""
    library = openmp()
    if library is None:
        return {}
    functions = {BARRIER: library.GOMP_barrier, THREAD: library.omp_get_thread_num}
    return {name: int(ctypes.cast(function, ctypes.c_void_p).value or 0) for name, function in functions.items()}


def barrier_address() -> int:
    """Return the address of the function at which a team's threads wait for one another as at its end; 0 without a runtime."""
    return addresses().get(BARRIER, 0)


def _let_team_go() -> None:
    """End the team of this thread, which the next call makes anew."""
    library = openmp()
    with contextlib.suppress(AttributeError):  # a runtime from before OpenMP 5.0
        if library is not None:
            library.omp_pause_resource_all(1)  # omp_pause_soft


# A forked process has none of the team's threads, and GNU's runtime would wait for them for ever: for kernels and for torch.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_let_team_go)
