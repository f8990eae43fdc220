"""A core for each thread of torch's team, and time on it saved up: beside other processes, what is timed has both at a stretch.

Linux may put two threads of a team on one core, where one spins for the other, and leave the other core to a busy process: a
round of 1 ms then took 30. And beside another process a thread has its core until the next tick, every 4 ms where there are 250
a second, which is too short for longer calls. But what a thread is owed (its lag, in Linux's EEVDF scheduler) is kept while it
sleeps, up to twice its slice, of which every process may choose its own since Linux 6.12. So threads sleep for a moment again
and again, and wait when they wake, as threads for batches of work do, for the next tick, until they are owed as much time as a
round takes; then they have their cores until it is used up. Over all they have no more than their fair part.
"""

import contextlib
import ctypes
import os
import platform
import struct
import sys
import threading
import time
from collections.abc import Callable, Mapping

from sparse_models.kernels.contention import CORES, TASKS, waits
from sparse_models.kernels.cpu._team import passed, run_on, threads

NAP_SECONDS = 6e-5
# Of two processes that want a core each has half; or a third, where it is in another session and wants another core as well
# (autogroup): then it waits for twice as long as it runs.
OWED = 2.0
WAIT_SECONDS = 2e-3  # that each nap brings, at the least; where nobody else wants the core it brings nothing
MORE_NAPS = 2
NAPPING = 4  # threads at most, those that have waited the most so far: each nap is a run of the whole team, of 64 threads too
SLICE_SECONDS = 0.1  # the longest there is
MOST_SECONDS = 2 * SLICE_SECONDS  # that a thread can be owed
SET_ATTRIBUTES = {"x86_64": 314, "aarch64": 274}.get(platform.machine())  # the number of sched_setattr, which Python lacks
_ATTRIBUTES = "IIQiIQQQ"  # size, policy, flags, nice, priority, runtime (of these policies the slice), deadline, period


class Cores:
    """Those of this process: its team's threads are each on one of them while they are claimed, until they are released."""

    def __init__(self) -> None:
        """Claim none yet."""
        self.are_claimed, self.team = False, list[int]()
        self.waited = 0.0  # seconds in naps, since they were claimed or last looked at

    def claim(self) -> None:
        """Give each thread of the team a core of its own, where there are as many as cores; where it may not have one, none.

        A team that has them keeps them; one of other threads gets them anew.
        """
        team = list[int]()
        if _ALLOWED and threads() <= CORES:
            _by_each(lambda: team.append(threading.get_native_id()))
        if self.are_claimed and set(team) == set(self.team):
            return
        self.release()
        self.team, self.are_claimed = team, bool(team)
        places = [{core} for core in sorted(_ALLOWED)] if len(team) == CORES else [_ALLOWED] * len(team)
        for thread, own in zip(team, places, strict=False):
            if not _place(thread, own, os.SCHED_BATCH, SLICE_SECONDS):
                self.release()
                break

    def release(self) -> None:
        """Let the threads be on any core, as they were, and those that they have started meanwhile."""
        if self.are_claimed:
            for thread in map(int, os.listdir(TASKS)):  # noqa: PTH208  # names alone are wanted
                _leave(thread)
        self.are_claimed, self.waited = False, 0.0

    def look(self) -> None:
        """Release them where nobody else has wanted them since they were claimed, or last looked at."""
        if self.are_claimed and self.waited < WAIT_SECONDS:
            self.release()
        self.waited = 0.0

    def save_up(self, seconds: float) -> None:
        """Have the threads nap in turn until one is owed so many seconds on its core; it is the one beside whom others are."""
        self.claim()  # a runtime that ran fewer threads meanwhile has started others
        seconds = min(seconds, MOST_SECONDS)
        before = waits()
        team = sorted(self.team, key=lambda thread: -before.get(str(thread), 0))[:NAPPING]
        owed = dict.fromkeys(team, 0)
        for number in range(len(team) * (MORE_NAPS + int(OWED * seconds / WAIT_SECONDS))):
            napping = team[number % len(team)]
            _by_each(lambda: time.sleep(NAP_SECONDS) if threading.get_native_id() == napping else None)  # noqa: B023
            after = waits()
            owed[napping] += after.get(str(napping), 0) - before.get(str(napping), 0)
            before = after
            is_wanted = number + 1 < MORE_NAPS * len(team) or self._most(owed) > WAIT_SECONDS
            if not is_wanted or self._most(owed) >= OWED * seconds:
                break
        self.waited += self._most(owed)

    @staticmethod
    def _most(owed: Mapping[int, int]) -> float:
        return max(owed.values(), default=0) / 1e9


# None where there is no Linux, or where the user has chosen another policy than the usual one.
_ALLOWED = set[int]()
with contextlib.suppress(OSError):  # where it is forbidden to ask
    if sys.platform == "linux" and os.sched_getscheduler(0) == os.SCHED_OTHER:
        _ALLOWED = os.sched_getaffinity(0)
TEAMS = Cores()


def _by_each(call: Callable[[], None]) -> None:
    team = threads()
    if team == 1:
        call()
        return
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: call())
    address = ctypes.cast(function, ctypes.c_void_p).value or 0
    run_on(address, passed(address, [], team), team)


def _place(thread: int, cores: set[int], policy: int, slice_seconds: float) -> bool:
    """Tell whether a thread may have these cores and this policy; its slice is as before where it may not choose that."""
    try:
        os.sched_setscheduler(thread, policy, os.sched_param(0))
        os.sched_setaffinity(thread, cores)
        nice = os.getpriority(os.PRIO_PROCESS, thread)
    except OSError:
        return False
    if SET_ATTRIBUTES is not None:
        size = struct.calcsize(_ATTRIBUTES)
        asked = struct.pack(_ATTRIBUTES, size, policy, 0, nice, 0, int(slice_seconds * 1e9), 0, 0)
        ctypes.CDLL(None).syscall(SET_ATTRIBUTES, thread, asked, 0)
    return True


def _leave(thread: int) -> None:
    with contextlib.suppress(OSError):  # it has ended
        if os.sched_getscheduler(thread) == os.SCHED_BATCH:  # as what was placed has it, and what that has started
            _place(thread, _ALLOWED, os.SCHED_OTHER, 0.0)
