"""Processes that keep cores busy: there while they are wanted, and never after."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.machine.neighbours import BUSY, neighbours

pytestmark = [
    pytest.mark.alone,  # they take a core
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are listed in Linux's /proc"),
]


def _children() -> set[str]:
    tasks = Path("/proc/self/task").iterdir()
    return {child for task in tasks for child in (task / "children").read_text().split()}


def test_neighbours_compute_while_they_are_wanted_and_are_gone_after() -> None:
    before = _children()
    with neighbours(2):
        started = _children() - before
        assert len(started) == 2
        ran = [_seconds(child) for child in started]
        time.sleep(0.1)
        assert all(_seconds(child) > seconds for child, seconds in zip(started, ran, strict=True))
    assert not _children() - before


def test_neighbours_are_gone_after_an_error() -> None:
    before = _children()
    with pytest.raises(RuntimeError, match="a layer's"), neighbours(1):
        raise RuntimeError("a layer's")
    assert not _children() - before


def test_a_neighbour_ends_with_its_parent() -> None:
    done = subprocess.run([sys.executable, "-I", "-S", "-c", BUSY, str(os.getpid() + 1)], timeout=20, check=False)
    assert done.returncode == 0  # its parent is another than it was


def _seconds(process: str) -> int:
    """Return the clock ticks that a process has computed for."""
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11])
