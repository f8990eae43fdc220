"""A compiled function in, run by the very threads that torch's own operations run on.

A second pool of threads would fight torch's for the cores: its threads spin for a while after each operation, and 2 + 2 of them
on 2 cores were 20 times as slow. So the OpenMP runtime that torch has loaded is asked for its team, as a compiler's code asks.
"""

import ctypes
import threading
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

from sparse_models.kernels.cpu._compile import phases_of
from sparse_models.kernels.cpu._flow import HEADER
from sparse_models.kernels.cpu._openmp import openmp


@cache
def _runtime() -> Callable[[int, int, int, int], None] | None:
    """Return the function that calls another by each thread of a team; None where there is no runtime."""
    library = openmp()
    return None if library is None else library.GOMP_parallel


def threads() -> int:
    """Return how many threads `run` takes: as many as torch is told to, or one where its OpenMP runtime is not found."""
    return torch.get_num_threads() if _runtime() else 1


# Weights below which one thread multiplies a single sample, unless measuring chose otherwise. What it takes to wake another
# differs by the hour where machines are shared: on two cores of a Zen 5 server one took 14 us for 105,000 weights, and two took
# 11 us, or 27 for hours.
WORTH_A_TEAM = 2**17
WORTH_TRYING = 2**15  # weights from which on it is measured: two threads gain 2 us there where one is woken in 1 us


def threads_for(weights: int) -> int:
    """Return how many threads are worth having for one sample and so many weights, on most machines."""
    return threads() if weights >= WORTH_A_TEAM else 1


Run = tuple[int, Sequence[Tensor | int], int]  # what `run` was given


class _Notes(threading.local):
    runs: list[Run] | None = None


_NOTES = _Notes()


@contextmanager
def noted() -> Iterator[list[Run]]:
    """Yield the list of what this thread's `run` is given in the block under `with`."""
    before, runs = _NOTES.runs, list[Run]()
    _NOTES.runs = runs
    try:
        yield runs
    finally:
        _NOTES.runs = before
        if before is not None:
            before += runs


def run(function: int, arguments: Sequence[Tensor | int], team: int) -> None:
    """Call the function at an address with integers and the addresses of tensors, by each thread of a team of this size."""
    if _NOTES.runs is not None:
        _NOTES.runs.append((function, arguments, team))
    run_on(function, passed(function, arguments, team), team)


def passed(function: int, arguments: Sequence[Tensor | int], team: int) -> "array[int]":
    """Return what a function is given of integers and of the addresses of tensors: a header, those, and tickets."""
    numbers = [argument if type(argument) is int else argument.data_ptr() for argument in arguments]  # type: ignore[union-attr]
    team = max(team, 1)  # of nothing to do callers make a team of none, and threads' numbers are divided by it
    return array("q", [team, 8 * (HEADER + len(numbers)), *numbers, *[0] * (phases_of(function) * team)])


def run_on(function: int, numbers: "array[int]", team: int) -> None:
    """Call the function at an address with what `passed` returned, which one call alone may use, by a team of this size."""
    address, _ = numbers.buffer_info()
    parallel = _runtime()
    if team > 1 and parallel:
        parallel(function, address, team, 0)
    else:
        _alone(function)(address)


@cache
def _alone(function: int) -> Callable[[int], None]:
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(function)
