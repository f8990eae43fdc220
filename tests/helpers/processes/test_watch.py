"""A test that hangs is named and ended with all that it started, and where each process was is told."""

import sys

import pytest

from tests.conftest import WATCH
from tests.helpers.in_process import ROOT
from tests.helpers.processes.commands import run
from tests.helpers.processes.watch import TELL

HANGS = """
import ctypes, os, re, subprocess, threading
from tests.helpers.processes.watch import Watch

def waits():
    threading.Event().wait()

def holds_pythons_lock():
    re.match("(a|a)*b", 50 * "a")

def waits_until_a_signal():
    ctypes.CDLL(None).pause()
    print("goes on", flush=True)

watch = Watch(0.2)
with watch.over("one that ends"):
    pass
threading.Event().wait(0.4)  # for the turn of another
with watch.over("one that is debugged"):
    watch.rest()
    threading.Event().wait(0.4)
with watch.over("one that hangs"):
    program = subprocess.Popen(["sleep", "600"])
    os.fork() or waits()
    os.fork() or waits_until_a_signal()
    holds_pythons_lock()
"""


def test_what_hangs_is_named_told_and_ended_with_all_that_it_started() -> None:
    command = [sys.executable, "-c", HANGS]
    done = run(command, cwd=ROOT)  # until none has its pipe
    assert done.returncode == -TELL
    named, _, told = done.stderr.strip().partition("\n")
    assert named == "one that hangs: expected its end within 0.2 s; its processes are killed, which are at:"
    assert done.stdout == ""
    at = [line.rpartition(" in ")[2] for line in told.splitlines() if "<string>" in line]
    assert at[:2] == ["holds_pythons_lock", "<module>"]
    assert sorted(at[2:]) == ["<module>", "<module>", "waits", "waits_until_a_signal"]


def test_each_test_is_watched(request: pytest.FixtureRequest) -> None:
    assert request.config.stash[WATCH].test == request.node.nodeid
