"""Processes that compute without end beside what is measured, as on a machine that is shared."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

# It ends with its parent, whatever becomes of that, and imports nothing that takes time.
BUSY = "import os, sys\nwhile os.getppid() == int(sys.argv[1]):\n    for _ in range(10**5): pass"


@contextlib.contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Keep so many cores busy, for as long as the block under `with` takes; each neighbour has begun before it does."""
    started = [
        subprocess.Popen(  # noqa: S603  # our own interpreter
            [sys.executable, "-I", "-S", "-c", f"print(flush=True)\n{BUSY}", str(os.getpid())], stdout=subprocess.PIPE
        )
        for _ in range(count)
    ]
    try:
        for process in started:
            assert process.stdout is not None
            process.stdout.readline()
        yield
    finally:
        for process in started:
            process.kill()
            process.communicate()
