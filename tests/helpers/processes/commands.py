"""Commands that tests run: each ends in time, or fails with what it said."""

import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

SECONDS = 100.0  # less than a test has (tests/helpers/processes/watch.py), whose end would tell nothing of what a program said


def run(command: Sequence[str | Path], seconds: float = SECONDS, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command and return what it said, as text; fail with that if it takes longer than these seconds, and end it."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds, **options)
    except subprocess.TimeoutExpired as late:
        said = b"".join(filter(None, (late.stdout, late.stderr))).decode(errors="replace")  # bytes, even of text
        pytest.fail(f"expected the end of {list(command)} within {seconds:g} s; it said until then:\n{said}")


def output(command: Sequence[str | Path], **options: Any) -> str:
    """Run a command and return its standard output, or fail with what it said if it fails."""
    done = run(command, **options)
    assert done.returncode == 0, f"{list(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


@contextmanager
def begun(command: Sequence[str], seconds: float = SECONDS, **options: Any) -> Iterator["subprocess.Popen[str]"]:
    """Start a command whose output and errors are text in one pipe, and wait for its end, or kill it after these seconds."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options) as process:
        late = threading.Timer(seconds, process.kill)
        late.start()
        try:
            yield process
            process.wait()
        finally:
            process.kill()
            late.cancel()
