"""Tests in; one that hangs is named, what each of its processes is at is told, and all of them are ended.

pytest's `faulthandler_timeout` ends the process of the test alone: whatever that forked holds pytest-xdist's pipe open, and the
lock that others wait for. So another process watches, as this one may hold Python's lock for ever.
"""

import faulthandler
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SECONDS = 150.0  # several times what the longest test takes on two busy cores with nothing compiled
TELL = signal.SIGUSR2
PROCESSES = Path("/proc")


class Watch:
    """A process that ends this one and all that it started, where a test takes too long."""

    def __init__(self, seconds: float = SECONDS) -> None:
        """Give a test as many seconds."""
        self.test = ""
        self._errors = os.dup(2)  # the terminal's, for while a test runs it is another
        faulthandler.register(TELL, self._errors, chain=True)  # and end: a call that the signal ends is not to go on
        command = [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(seconds)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0)

    @contextmanager
    def over(self, test: str) -> Iterator[None]:
        """Watch over a test."""
        self._say(test)
        try:
            yield
        finally:
            self.rest()

    def rest(self) -> None:
        """Leave the test in hand as much time as it takes: someone debugs it."""
        self._say("")

    def _say(self, test: str) -> None:
        self.test = test
        assert self._process.stdin is not None
        self._process.stdin.write(f"{test}\n".encode())

    def close(self) -> None:
        """Stop."""
        faulthandler.unregister(TELL)
        os.close(self._errors)
        with self._process:
            self._process.kill()  # to close its pipe does not end it where a process that was forked has that too


def _watch(process: int, seconds: float) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C tells the test to end, which is still watched
    test = ""
    while select.select([0], [], [], seconds if test else None)[0]:
        said = os.read(0, 2**16).decode()
        if not said:
            return  # the process has ended
        test = said.split("\n")[-2]
    print(
        f"\n{test}: expected its end within {seconds:g} s; its processes are killed, which are at:", file=sys.stderr, flush=True
    )
    started = _started_by(process)
    _end([process])  # first, or it would go on, to another test, as the others end
    _end(started)


def _end(processes: list[int]) -> None:
    """Have processes say where they are, one after another, and end; a program that was started only ends."""
    for one in processes:
        with suppress(ProcessLookupError):
            os.kill(one, TELL)
            late = time.monotonic() + 5.0
            while _runs(one) and time.monotonic() < late:
                time.sleep(0.01)
            os.kill(one, signal.SIGKILL)


def _runs(process: int) -> bool:
    """Tell whether a process has not ended yet; where the system shows none as files, it may run."""
    try:
        return _stat(PROCESSES / str(process) / "stat")[0] != "Z"
    except OSError:
        return not (PROCESSES / "self").exists()


def _stat(file: Path) -> list[str]:
    return file.read_text().rpartition(")")[2].split()  # its state, its parent, and more


def _started_by(process: int) -> list[int]:
    """Return the processes that one started, and those that these started, where the system shows them as files."""
    parents = {}
    for file in PROCESSES.glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            parents[int(file.parent.name)] = int(_stat(file)[1])
    found = [process]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one and child != os.getpid()]
    return found[1:]


if __name__ == "__main__":
    _watch(int(sys.argv[1]), float(sys.argv[2]))
