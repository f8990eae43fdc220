"""Commands that tests run end in time, or fail with what they said."""

import sys

import pytest

from tests.helpers.processes.commands import begun, output, run


def test_a_command_that_does_not_end_fails_with_what_it_said() -> None:
    hangs = "import sys, time; print('at work', flush=True); print('too long', file=sys.stderr, flush=True); time.sleep(600)"
    with pytest.raises(pytest.fail.Exception, match=r"within 1 s; it said until then:\nat work\ntoo long\n"):
        run([sys.executable, "-I", "-S", "-c", hangs], 1)


def test_a_command_that_fails_fails_with_what_it_said() -> None:
    with pytest.raises(AssertionError, match=r"ended with 3:\nhere\n"):
        output([sys.executable, "-I", "-S", "-c", "print('here'); raise SystemExit(3)"])


def test_a_command_that_does_not_end_while_one_waits_is_killed() -> None:
    with begun([sys.executable, "-I", "-S", "-c", "import time; print('at work', flush=True); time.sleep(600)"], 1) as process:
        assert process.stdout is not None
        assert process.stdout.read() == "at work\n"
    assert process.returncode == -9
