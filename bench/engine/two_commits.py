"""Two commits, measured in turns on this machine: the sound way to gate a change where the machine is shared and noisy.

Each commit has a worktree of its own and measures itself by its own `pytest bench`. Before every fresh process each waits for
its turn (bench.engine.interleaving), and turns go base, head, head, base. So the two processes of one number ran one after the
other, and what the machine does over minutes is in neither's favour. What is told is the change within these pairs.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.engine.interleaving import REPORT, VARIABLE
from bench.runs.files import read_whole
from bench.runs.plain_text import printable
from sparse_models.errors import InputError

TESTS_FAILED, INTERRUPTED = 1, 2  # pytest's exit codes with which a run is saved all the same
LAST_LINES = 15


class _Side:
    """One commit's run: a process of its worktree, and the two pipes by which it asks for its turns."""

    def __init__(self, name: str, folder: Path, options: Sequence[str], log: Path) -> None:
        self.name, self.folder, self.log = name, folder, log
        self._storage = log.parent / name
        asked, asking = os.pipe()
        answering, self._answer = os.pipe()
        environment = {**os.environ, VARIABLE: f"{asking},{answering}", "PYTHONPATH": str(folder)}
        command = [sys.executable, "-m", "pytest", "bench", "-p", "no:cacheprovider", *options]
        command += ["--benchmark-save=run", f"--benchmark-storage={self._storage}"]
        with log.open("wb") as output:
            self.process = subprocess.Popen(  # noqa: S603  # the suite's own
                command,
                cwd=folder,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(asking, answering),
                preexec_fn=_apart,  # noqa: PLW1509  # no threads run yet
            )
        os.close(asking)
        os.close(answering)
        self._asked = os.fdopen(asked, encoding="utf-8")

    def next(self) -> str | None:
        """Wait until the run asks for a turn and return what for; None once it has ended."""
        line = self._asked.readline()
        if not line:
            return None
        said = json.loads(line)
        if not Path(said["code"]).is_relative_to(self.folder):
            raise InputError(f"{self.name}: expected the worktree's own code, got that of {said['code']}; unset PYTHONSAFEPATH")
        return str(said["ask"])

    def go(self) -> None:
        """Hand the turn over."""
        os.write(self._answer, b"\n")

    def end(self) -> None:
        """See the run to its end."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        os.close(self._answer)  # a run that waits for its turn goes on, even if the signal came just before it began to wait
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._asked.close()

    def result(self) -> bytes:
        """Return the run that was saved; raises InputError, with the end of what it printed, where none was."""
        code = self.process.returncode
        saved = list(self._storage.glob("*/*_run.json"))
        if code in (0, TESTS_FAILED, INTERRUPTED) and saved:
            return read_whole(saved[0])
        last = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-LAST_LINES:]
        told = "\n".join(f"  {printable(line)}" for line in last)
        raise InputError(f"{self.name}: expected a saved run of it, got none (exit code {code}):\n{told}")


def _apart() -> None:
    """Have a run be ended from here alone, once, so that it saves what it has in peace."""
    os.setpgrp()  # Ctrl-C does not reach it; it stays in this session, by which Linux shares the cores out (autogroup)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # in the background, as under nohup, it would inherit that SIGINT is ignored


def measure_in_turns(base: str, head: str, options: Sequence[str], tell: Callable[[str], None]) -> dict[str, bytes]:
    """Return the saved runs of the commits `base` and `head`; raises InputError, one sentence, where one cannot be measured."""
    commits = {"base": _commit(base), "head": _commit(head)}
    for name, commit in commits.items():
        tell(f"{name}: {_git('log', '-1', '--format=%h %s', commit)}")
    if head == "HEAD" and _git("status", "--porcelain", "--untracked-files=no"):
        tell("uncommitted changes are in neither: commit what is to be measured")
    with tempfile.TemporaryDirectory(prefix="sparse-models-") as scratch:
        place = Path(scratch).resolve()
        with worktrees(place, commits) as folders:
            sides = [_Side(name, folders[name], options, place / f"{name}.log") for name in commits]
            try:
                take_turns(sides, tell)
            finally:
                for side in sides:
                    side.end()
            return {side.name: side.result() for side in sides}


def take_turns(sides: Sequence[_Side], tell: Callable[[str], None]) -> None:
    """Hand out turns, base and head, head and base, until both have measured all; at Ctrl-C, what they have counts."""
    try:
        asking = {side.name: side.next() for side in sides}  # each is ready before any measures
        for side in sides:
            if asking[side.name] is None:
                side.process.wait()
                side.result()  # raises InputError with what it printed, if it could not start
                raise InputError(f"{side.name}: expected a commit whose suite takes turns, got one that does not; take a newer")
        order = list(sides)
        while any(ask not in (None, REPORT) for ask in asking.values()):
            for side in order:
                if asking[side.name] not in (None, REPORT):
                    tell(f"{side.name}: {asking[side.name]}")
                    side.go()
                    asking[side.name] = side.next()
            order.reverse()
        for side in sides:
            if asking[side.name]:
                side.go()
                side.process.wait()
    except KeyboardInterrupt:
        tell("interrupted: what was measured so far is compared")


@contextmanager
def worktrees(place: Path, commits: dict[str, str]) -> Iterator[dict[str, Path]]:
    """Check each commit out below `place`, and yield where the suite lies in each."""
    _git("worktree", "prune")  # of those that were killed
    inside = _git("rev-parse", "--show-prefix")
    made: list[Path] = []
    try:
        for name, commit in commits.items():
            made.append(place / f"{name}-tree")
            _git("worktree", "add", "--detach", "--quiet", str(made[-1]), commit)
        yield {name: tree / inside for name, tree in zip(commits, made, strict=True)}
    finally:
        for tree in made:
            shutil.rmtree(tree, ignore_errors=True)
        _git("worktree", "prune")


def _commit(name: str) -> str:
    return _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}") or ""


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)  # noqa: S603, S607
    except FileNotFoundError:
        raise InputError("expected git, got none; install it") from None
    except subprocess.CalledProcessError as error:
        why = printable(error.stderr.strip() or "no such commit")
        raise InputError(f"expected `git {' '.join(arguments[:2])}` to work for {arguments[-1]}, got: {why}") from None
    return done.stdout.strip()
