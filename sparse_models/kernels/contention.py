"""How long the threads of this process were ready to run and had no core, as Linux's scheduler tells.

It says from outside, and not by the time measured, whether a round was disturbed, and for how long: what waited for a core that
another process had is no measure of the code. Where the kernel does not tell, nothing ever waited.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

TASKS = Path("/proc/self/task")
# A process whose own threads want more cores than there are waits for itself, which is what its code costs. Half a core more is
# left to threads that hand work to one another.
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
SPARE_CORES = 0.5
# A round in which a thread waited for a core that another process had measures that process too: how many parallel regions the
# work has, of which each may cost a slice of the other's time. Such a wait is a few milliseconds or none; what is left below
# this fraction are the kernel's own threads. A wait is told when it ends, and no round ends before the threads that it needs
# are through with theirs: what is told of a round may have begun before it, and never comes too late for it.
DISTURBED = 0.02
_files: dict[str, int] = {}  # kept open: reading one again takes a few microseconds


def waits() -> dict[str, int]:
    """Return each thread's nanoseconds so far (`schedstat` in Documentation/scheduler/sched-stats of Linux)."""
    told = {}
    try:
        threads = os.listdir(TASKS)  # noqa: PTH208  # called between any two rounds, and three times as fast
    except OSError:
        return {}
    for thread in threads:
        try:
            if thread not in _files:
                _files[thread] = os.open(TASKS / thread / "schedstat", os.O_RDONLY)
            told[thread] = int(os.pread(_files[thread], 100, 0).split()[1])
        except (OSError, IndexError, ValueError):  # noqa: PERF203  # a thread that ended, or a kernel that does not count
            _forget(thread)
    if len(_files) > len(told):
        for thread in _files.keys() - told.keys():  # they ended between two readings
            _forget(thread)
    return told


def _forget(thread: str) -> None:
    if thread in _files:
        os.close(_files.pop(thread))


def longest(before: Mapping[str, int], after: Mapping[str, int]) -> float:
    """Return the seconds between two readings for which the thread that waited longest had no core.

    The threads of a parallel loop wait for one another at its end, so the one that waits longest is by how much it is late.
    """
    return max((nanoseconds - before.get(thread, 0) for thread, nanoseconds in after.items()), default=0) / 1e9


class Usage(NamedTuple):
    """What this process has had so far, in seconds: time, time on cores, and each thread's nanoseconds without one."""

    elapsed: float
    on_cores: float
    without: Mapping[str, int]

    @classmethod
    def now(cls) -> "Usage":
        """Return the readings of this moment."""
        return cls(time.monotonic(), time.process_time(), waits())

    def waited_for_itself(self, later: "Usage") -> bool:
        """Tell whether between this reading and a later one the process's own threads wanted more cores than there are."""
        without = sum(nanoseconds - self.without.get(thread, 0) for thread, nanoseconds in later.without.items()) / 1e9
        wanted = later.on_cores - self.on_cores + without
        return wanted > (CORES + SPARE_CORES) * (later.elapsed - self.elapsed)

    def was_disturbed(self, later: "Usage") -> bool:
        """Tell whether between this reading and a later one another process had a core that a thread of this one waited for."""
        waited = longest(self.without, later.without) / max(later.elapsed - self.elapsed, 1e-9)
        return waited > DISTURBED and not self.waited_for_itself(later)
