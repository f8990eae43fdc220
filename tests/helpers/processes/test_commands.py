"""Commands that tests run end in time, or fail with what they said."""

import pytest

from tests.helpers.processes.commands import begun, output, run


def test_a_command_that_does_not_end_fails_with_what_it_said() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"within 0\.3 s; it said until then:\nat work\ntoo long\n"):
        run(["/bin/sh", "-c", "echo at work; echo too long >&2; exec sleep 600"], 0.3)


def test_a_command_that_fails_fails_with_what_it_said() -> None:
    with pytest.raises(AssertionError, match=r"ended with 3:\nhere\n"):
        output(["/bin/sh", "-c", "echo here; exit 3"])


def test_a_command_that_does_not_end_while_one_waits_is_killed() -> None:
    with begun(["/bin/sh", "-c", "echo at work; exec sleep 600"], 0.3) as process:
        assert process.stdout is not None
        assert process.stdout.read() == "at work\n"
    assert process.returncode == -9
