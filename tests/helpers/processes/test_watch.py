"""A test that hangs is named and ended with all that it started, and where each process was is told."""

import sys

import pytest

from tests.conftest import WATCH
from tests.helpers.in_process import ROOT
from tests.helpers.processes.commands import run

HANGS = """
import os, re, subprocess, threading
from tests.helpers.processes.watch import Watch

def waits():
    threading.Event().wait()

def holds_pythons_lock():
    re.match("(a|a)*b", 50 * "a")

watch = Watch(0.3)
with watch.over("one that ends"):
    pass
threading.Event().wait(0.6)  # for the turn of another
with watch.over("one that is debugged"):
    watch.rest()
    threading.Event().wait(0.6)
with watch.over("one that hangs"):
    program = subprocess.Popen(["sleep", "600"])
    os.fork() or waits()
    holds_pythons_lock()
"""


def test_what_hangs_is_named_told_and_ended_with_all_that_it_started() -> None:
    command = [sys.executable, "-c", HANGS]
    done = run(command, cwd=ROOT)  # until none has its pipe
    assert done.returncode == -9
    named, _, told = done.stderr.strip().partition("\n")
    assert named == "one that hangs: expected its end within 0.3 s; its processes are killed, which are at:"
    assert [line.rpartition(" in ")[2] for line in told.splitlines() if "<string>" in line] == [
        "holds_pythons_lock", "<module>", "waits", "<module>",
    ]  # fmt: skip


def test_each_test_is_watched(request: pytest.FixtureRequest) -> None:
    assert request.config.stash[WATCH].test == request.node.nodeid
