"""Processes that save runs, one after another, until they are killed; and what pytest-benchmark logs with."""

import subprocess
import sys
from pathlib import Path
from typing import Any


class Logger:
    """What pytest-benchmark logs with."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, text: str, **_: Any) -> None:
        self.lines.append(text)

    warning = info


# Imports once, which takes seconds, and forks a process for each line: it saves one run after another, without a number until
# it is killed. A line of a process's number alone waits for its end.
SAVING = """
import itertools, os, sys
from pathlib import Path
from bench.runs.storage import save_numbered, write_whole
content = Path(sys.argv[1]).read_bytes()
for line in sys.stdin:
    name, _, asked = line.strip().partition(" ")
    if not asked:
        print(os.waitstatus_to_exitcode(os.waitpid(int(name), 0)[1]), flush=True)
    elif pid := os.fork():
        print(pid, flush=True)
    else:
        many, _, folder = asked.partition(" ")
        for number in range(int(many)) if int(many) else itertools.count():
            save_numbered(Path(folder), f"{name}-{number}", content)
            write_whole(Path(folder, "same.json"), content[:-1] + b" " * (number % 7) + b"}")
        os._exit(0)
"""


class Saving:
    """Processes that save what a file holds."""

    def __init__(self, content: Path) -> None:
        command = [sys.executable, "-c", SAVING, str(content)]
        self.parent = subprocess.Popen(
            command, cwd=Path(__file__).parents[2], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, line: str) -> int:
        assert self.parent.stdin is not None
        assert self.parent.stdout is not None
        print(line, file=self.parent.stdin, flush=True)
        return int(self.parent.stdout.readline())

    def start(self, folder: Path, name: str, many: int = 0) -> int:
        """Start a process that saves so many runs into a folder, or until it is killed, and return its number."""
        return self.ask(f"{name} {many} {folder}")

    def end(self, process: int) -> int:
        """Wait for a process and return its exit code."""
        return self.ask(str(process))
