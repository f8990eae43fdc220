"""Jobs in, what all their processes are given out, found before anything is timed: variants of our own kernels, and the rest.

The variants are measured, in one fresh process alone. The rest is no timing: learning rates, networks pruned, code compiled.
The module of a body may have two functions: `to_prepare` returns what a case needs, as cases, and `prepare` finds that out for
one of these, so that it is the same in whichever process. That is done on all cores at once. What is not found in time, or
fails, the first process that needs it finds out and tells.
"""

import contextlib
import importlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from multiprocessing import get_context
from types import MappingProxyType
from typing import Any, NamedTuple

from bench.cases import Case
from bench.engine.forkserver import ForkServer
from bench.engine.jobs import Job, Spent
from bench.engine.processes import Means
from bench.grids import is_gpu
from bench.works.once_per_run import KNOWN
from bench.works.tuning import as_tuned, has_variants
from sparse_models.kernels import choice
from sparse_models.kernels.choice import ASKED
from sparse_models.kernels.contention import CORES
from sparse_models.kernels.variant import Choice

PREPARE = "prepare"  # the function of a body's module
AT_ONCE = 8  # processes at most, however many cores there are: one that compiles takes up to 650 MiB
AT_ONCE_ON_GPU = 16  # beside which there is more memory, and of which some wait for the GPU


class Tuned(NamedTuple):
    """Choices, plain, by the class of the works; which of them were measured now; and what the environment asks for instead."""

    choices: Mapping[str, Any] = MappingProxyType({})
    measured: Sequence[str] = ()
    asked: str = ""

    @property
    def facts(self) -> dict[str, Any]:
        """What a saved run says of the kernels' variants."""
        chosen = {name: str(Choice.of(choice)) for name, choice in sorted(self.choices.items())}
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


def found_out(
    jobs: Sequence[Job], means: Means, until: float, tell: Callable[[str], None], *, compiled: bool = False
) -> tuple[dict[str, Any], Spent]:
    """Find out, until a reading of time.monotonic, what the jobs need; return it by its names, and the time that it took.

    Where none of it is `compiled` by PyTorch, its compiler is loaded meanwhile, if the jobs will need it. A single thing the
    first process that needs it finds as soon.
    """
    needed = preparations(jobs)
    if len(needed) < 2 or sys.platform != "linux":  # elsewhere no process is forked from one that has loaded PyTorch
        return {}, Spent()
    start, known, done = time.monotonic(), dict[str, Any](), 0
    call = [__name__, find_all.__name__, [together(needed), dict(means.choices)]]
    asked = {"cases": needed, "call": call, "meanwhile": not compiled}
    fresh = means.fork_server.run(asked)
    for said in fresh:
        known |= said.get("known", {})
        done += said.get("found", 0)
        means.progress(f"what all processes need to know: {done} of {len(needed)}")
        if time.monotonic() > until and done < len(needed):
            fresh.close()
    if done < len(needed):
        why = "the time was over" if time.monotonic() > until else "a process died"
        tell(
            f"what all processes need to know: {why} before {len(needed) - done} of {len(needed)} were found; each is found by "
            "the first process that times with it"
        )
    return known, Spent(building=time.monotonic() - start)


def preparations(jobs: Sequence[Job]) -> list[tuple[str, str, Case]]:
    """Return what the jobs need to be prepared, each once, in the order in which it is needed."""
    found: dict[tuple[str, str, Case], None] = {}
    for job in jobs:
        module = importlib.import_module(job.module)
        if hasattr(module, PREPARE):
            prepare = getattr(module, PREPARE)  # by its own name: bodies that need the same may share it
            found |= dict.fromkeys((prepare.__module__, prepare.__name__, case) for case in module.to_prepare(job.case))
    return list(found)


def together(needed: Sequence[tuple[str, str, Case]]) -> list[list[tuple[str, str, Case]]]:
    """Return what is needed in groups that one process finds out, one after another: what differs in its sparsity alone.

    A network that is pruned to several sparsities is trained once for all of them.
    """
    groups: dict[tuple[str, str, Case], list[tuple[str, str, Case]]] = {}
    for module, function, case in needed:
        groups.setdefault((module, function, case._replace(sparsity=0.0)), []).append((module, function, case))
    return list(groups.values())


def at_once(groups: Sequence[Sequence[tuple[str, str, Case]]]) -> int:
    """Return by how many processes groups are found."""
    on_gpu = any(is_gpu(case.device) for group in groups for _, _, case in group)
    return min(CORES, AT_ONCE_ON_GPU if on_gpu else AT_ONCE, len(groups))


def find_all(groups: list[list[tuple[str, str, list[Any]]]], choices: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what is found out for each group, as it is found, by a process for each core; and nothing every second.

    For what is not found, as where a process died, nothing is yielded.
    """
    choice.hold(choices)
    found_by = [[(module, function, Case(*values)) for module, function, values in group] for group in groups]
    with ProcessPoolExecutor(at_once(found_by), get_context("fork")) as processes:
        looked_for = {processes.submit(_find, group): len(group) for group in found_by}
        while looked_for:
            over, _ = wait(looked_for, timeout=1.0, return_when=FIRST_COMPLETED)
            found = {one: looked_for.pop(one) for one in over}
            yield from ({"known": one.result(), "found": count} for one, count in found.items() if one.exception() is None)
            yield {}  # for whoever listens to see whether there is time left


def _find(group: list[tuple[str, str, Case]]) -> dict[str, Any]:
    before = set(KNOWN)
    for module, function, case in group:
        with contextlib.suppress(Exception):  # it is met again, and told, where the case is timed
            getattr(importlib.import_module(module), function)(case)
    return {key: value for key, value in KNOWN.items() if key not in before}
