"""What a fresh process is asked in, what it says out, line by line, and how it ended."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping
from typing import Any

EXIT = '{"exit": '  # of a process, told by the one that forked it


class ForkServer:
    """One process that stands ready to fork others from (bench.engine.worker); it is started when there is need of it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Give its processes these variables beside this process's own."""
        self._environment = environment
        self._parent: subprocess.Popen[str] | None = None
        self._forked: int | None = None
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed in close()

    def run(self, asked: dict[str, Any]) -> Generator[dict[str, Any], None, str | None]:
        """Yield what a fresh process that is asked this says; return how it died, or None if it did not.

        It is killed where it is not listened to until its end.
        """
        self._errors.seek(0)
        self._errors.truncate()
        parent = self._started()
        assert parent.stdin is not None
        assert parent.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it died before it read: told below
            parent.stdin.write(json.dumps(asked) + "\n")
            parent.stdin.flush()
        code = None
        for line in parent.stdout:
            said = _read(line)
            if "exit" in said:
                code, self._forked = said["exit"], None
                break
            self._forked = said.pop("process", self._forked)
            try:
                yield said
            except GeneratorExit:
                self._kill_forked()
                if not any(EXIT in line for line in parent.stdout):
                    self._stop()  # what was killed was no fork
                raise
        if code is None:
            code = parent.wait()
        if code == 0:
            return None
        self._errors.seek(0)
        last = (self._errors.read().strip().splitlines() or ["no message"])[-1]
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"the process that measured this case died ({how}): {last}"

    def _started(self) -> "subprocess.Popen[str]":
        if self._parent is None or self._parent.poll() is not None:
            self._stop()
            # In the session of the process that asks: Linux shares the cores out by session first (autogroup).
            self._parent = subprocess.Popen(
                [sys.executable, "-m", "bench.engine.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                env=os.environ | dict(self._environment),
            )
        return self._parent

    def _stop(self) -> None:
        if self._parent is None:
            return
        self._kill_forked()
        self._parent.kill()
        for pipe in (self._parent.stdin, self._parent.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        self._parent.wait()

    def _kill_forked(self) -> None:
        if self._forked is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._forked, signal.SIGTERM)
                os.kill(self._forked, signal.SIGKILL)
            self._forked = None

    def close(self) -> None:
        """Kill the process and those it forked."""
        self._stop()
        self._errors.close()


def _read(line: str) -> dict[str, Any]:
    """Return what a line says; how a process ended may stand behind half a line, in the middle of which it was killed."""
    return json.loads(line[max(line.rfind(EXIT), 0) :])  # type: ignore[no-any-return]
