"""How long the threads of this process were ready to run and had no core, as Linux's scheduler tells.

It says from outside, and not by the time measured, whether a round was disturbed: what waited for a core that another process
had is no measure of the code. Where the kernel does not tell, nothing ever waited.
"""

import os
from pathlib import Path

TASKS = Path("/proc/self/task")
_files: dict[str, int] = {}  # kept open: reading one again takes a few microseconds


def waited() -> float:
    """Return the seconds so far, of all threads together (`schedstat` in Documentation/scheduler/sched-stats of Linux)."""
    nanoseconds = 0
    try:
        threads = os.listdir(TASKS)  # noqa: PTH208  # called between any two rounds, and three times as fast
    except OSError:
        return 0.0
    for thread in threads:
        try:
            if thread not in _files:
                _files[thread] = os.open(TASKS / thread / "schedstat", os.O_RDONLY)
            nanoseconds += int(os.pread(_files[thread], 100, 0).split()[1])
        except (OSError, IndexError, ValueError):  # noqa: PERF203  # a thread that ended, or a kernel that does not count
            if thread in _files:
                os.close(_files.pop(thread))
    return nanoseconds / 1e9
