"""Jobs in, what all their processes are given out, found before anything is timed: variants of our own kernels, and the rest.

The variants are measured, in one fresh process alone. The rest is no timing: learning rates, networks pruned, code compiled.
The module of a body may have a function `prepare`, which finds out for a case what is the same in all processes. That is done
on all cores at once, in a process of one thread for each: what trains so small a network gains little by more. What is not
found in time, or fails, the first process that needs it finds out and tells.
"""

import contextlib
import ctypes
import importlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from multiprocessing import get_context
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from bench.cases import Case
from bench.engine.forkserver import ForkServer
from bench.engine.jobs import Job, Spent
from bench.engine.processes import Means
from bench.shapes import Shape
from bench.works.once_per_run import KNOWN
from bench.works.tuning import as_tuned, has_variants
from sparse_models.kernels import choice
from sparse_models.kernels.choice import ASKED
from sparse_models.kernels.contention import CORES
from sparse_models.kernels.variant import Choice

PREPARE = "prepare"  # the function of a body's module
DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux's prctl


class Tuned(NamedTuple):
    """Choices, plain, by the class of the works; which of them were measured now; and what the environment asks for instead."""

    choices: Mapping[str, Any] = MappingProxyType({})
    measured: Sequence[str] = ()
    asked: str = ""

    @property
    def facts(self) -> dict[str, Any]:
        """What a saved run says of the kernels' variants."""
        chosen = {name: str(Choice.of(choice).variant) for name, choice in sorted(self.choices.items())}
        return {"asked": self.asked or "measured", "chosen": chosen, "measured_seconds": self.seconds}

    @property
    def seconds(self) -> float:
        """How long measuring took now."""
        return sum(float(self.choices[name]["seconds"]) for name in self.measured)

    def __str__(self) -> str:
        """Tell it in a sentence."""
        if self.asked:
            return f"kernels: the variant is fixed ({ASKED}={self.asked})"
        before = len(self.choices) - len(self.measured)
        now = f"{len(self.measured)} measured now in {self.seconds:.1f} s, " if self.measured else ""
        return f"kernels: a variant for each of {len(self.choices)} classes of shapes: {now}{before} known from before"


def tuned(jobs: Sequence[Job], fork_server: ForkServer) -> Tuned | None:
    """Return the variants that the jobs need; None where none of them has any."""
    cases = dict.fromkeys(as_tuned(job.case) for job in jobs if has_variants(job.case))
    if not cases:
        return None
    asked = os.environ.get(ASKED, "").strip()
    if asked not in ("", "measured"):
        return Tuned(asked=asked)
    found = Tuned()
    for said in fork_server.run({"cases": [], "call": ["bench.engine.worker", "tuned", [list(cases)]]}):
        found = Tuned(said["choices"], said["measured"]) if "choices" in said else found
    return found


def found_out(jobs: Sequence[Job], means: Means, until: float, *, compiled: bool = False) -> tuple[dict[str, Any], Spent]:
    """Find out, until a reading of time.monotonic, what the jobs need; return it by its names, and the time that it took.

    Where none of it is `compiled` by PyTorch, its compiler is loaded meanwhile, if the jobs will need it.
    """
    units = units_of(jobs)
    if not units or sys.platform != "linux":  # elsewhere no process is forked from one that has loaded PyTorch
        return {}, Spent()
    start, known, done = time.monotonic(), dict[str, Any](), 0
    call = [__name__, find_all.__name__, [units, dict(means.choices)]]
    asked = {"cases": [one for unit in units for one in unit], "call": call, "meanwhile": not compiled}
    fresh = means.fork_server.run(asked)
    for said in fresh:
        known |= said.get("known", {})
        done += "known" in said
        means.progress(f"what all processes need to know: {done} of {len(units)}")
        if time.monotonic() > until:
            fresh.close()
    return known, Spent(building=time.monotonic() - start)


def units_of(jobs: Sequence[Job]) -> list[list[tuple[str, str, Case]]]:
    """Return the cases to be prepared, those together that have something in common: an arm's seeds, a network's sparsities."""
    units: dict[tuple[str, Case], dict[Case, tuple[str, str, Case]]] = {}
    for job in jobs:
        if job.case.device == "cpu" and hasattr(importlib.import_module(job.module), PREPARE):
            case = job.case._replace(seed=0)
            sizes = "x".join(map(str, Shape.parse(case.shape).sizes))
            unit = units.setdefault((job.module, case._replace(shape=sizes, sparsity=0.0)), {})
            unit[case] = (job.module, job.function, case)
    return [list(unit.values()) for unit in units.values()]


def find_all(units: list[list[Any]], choices: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what is found out for each of the units, as it is found, by a process for each core; and nothing every second."""
    choice.hold(choices)
    with ProcessPoolExecutor(min(CORES, len(units)), get_context("fork"), _die_with_parent, (os.getpid(),)) as processes:
        looked_for = {processes.submit(_find, unit) for unit in units}
        while looked_for:
            found, looked_for = wait(looked_for, timeout=1.0, return_when=FIRST_COMPLETED)
            yield from ({"known": {} if one.exception() else one.result()} for one in found)
            yield {}  # for whoever listens to see whether there is time left


def _die_with_parent(parent: int) -> None:
    """Have this process killed where the one that forked it is, as at the end of the budget and after Ctrl-C."""
    ctypes.CDLL(None).prctl(DIES_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _find(unit: list[Any]) -> dict[str, Any]:
    before = set(KNOWN)
    for module, _, values in unit:
        torch.set_num_threads(1)
        with contextlib.suppress(Exception):  # it is met again, and told, where the case is timed
            getattr(importlib.import_module(module), PREPARE)(Case(*values))
    return {key: value for key, value in KNOWN.items() if key not in before}
