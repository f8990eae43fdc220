"""Hypothesis on shared machines, where no example has a deadline; and how processes that share the tests share the machine."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings

from tests.helpers.kept_fork_servers import fork_servers
from tests.helpers.kernel_checks import poisoned, watcher

__all__ = ["fork_servers", "poisoned", "watcher"]  # fixtures

# pytest-benchmark measures nothing in a process of pytest-xdist; what a test of ours has it measure is to be measured.
os.environ.pop("PYTEST_XDIST_WORKER", None)

# Two teams of threads that spin as they wait, on two cores, wait for one another: all else took half as long. It is read as
# PyTorch is loaded, so it holds in the processes that are started from here.
os.environ["OMP_WAIT_POLICY"] = "passive"

# Compiling dense takes ten seconds where nothing of it is known yet; the tests that are about it ask for it.
os.environ["TORCH_COMPILE_DISABLE"] = "1"

# Continuous integration draws the same examples every time.
settings.register_profile("local", deadline=None, max_examples=60)
settings.register_profile("ci", parent=settings.get_profile("local"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Run a test and its fixtures while no other process runs one, if it is marked `alone`, or beside those that are not."""
    if not hasattr(item.config, "workerinput"):  # of pytest-xdist
        return (yield)
    with turn(Path(item.config.option.basetemp).parent, is_alone=item.get_closest_marker("alone") is not None):
        return (yield)


@contextmanager
def turn(folder: Path, *, is_alone: bool) -> Iterator[None]:
    """Hold what one may hold alone, or several together: two files of a folder that all of them know.

    Who would hold it queues, so that those who come later do not keep one from it who would be alone.
    """
    with (folder / "queue").open("w") as queue, (folder / "machine").open("w") as machine:
        fcntl.flock(queue, fcntl.LOCK_EX)
        fcntl.flock(machine, fcntl.LOCK_EX if is_alone else fcntl.LOCK_SH)
        fcntl.flock(queue, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(machine, fcntl.LOCK_UN)  # for a process that the test forked and left has the files open, too
