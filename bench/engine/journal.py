"""What a run has measured so far, kept line by line until the run is saved, so that `--resume` can go on where it was broken.

A line is one visit of a process to a case, or what one such visit found out for the next. A run that is killed leaves its
journal; a line that was cut by that is left out. The lock of a journal ends with its process, whatever ends that.
"""

import contextlib
import hashlib
import json
import math
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from filelock import FileLock

import bench
import sparse_models
from bench.runs.outcome import Race
from sparse_models.errors import InputError


class Said(NamedTuple):
    """What a process said of a case."""

    process: int
    name: str
    said: dict[str, Any]


def identity(machine: str, names: Iterable[str]) -> dict[str, Any]:
    """Return what must be the same in a run and in the one that goes on with it: the code, the machine and the cases."""
    return {"sources": sources(), "machine": machine, "cases": sorted(names)}


def sources() -> str:
    """Return a hash of the code that measures and of that which is measured, committed or not."""
    told = hashlib.sha256()
    for package in (sparse_models, bench):
        for path in sorted(Path(*package.__path__).rglob("*.py")):
            told.update(f"{path.name} ".encode() + path.read_bytes())
    return told.hexdigest()


class Journal:
    """The journal of one run; `said` is what a broken run had measured before."""

    def __init__(self, path: Path, said: list[Said]) -> None:
        """Hold the journal at `path` against other runs; raises filelock.Timeout where another has it, which is an OSError."""
        self.path, self.said = path, said
        self._lock = FileLock(path.with_suffix(".lock"), timeout=0)
        self._lock.acquire()
        self._file = path.open("a", encoding="utf-8")

    @classmethod
    def start(cls, folder: Path, run: dict[str, Any]) -> "Journal":
        """Return the new journal of a run with this identity."""
        folder.mkdir(parents=True, exist_ok=True)
        journal = cls(folder / f".run-{time.time_ns()}-{os.getpid()}.jsonl", [])
        journal._write(run)
        return journal

    @classmethod
    def resume(cls, folder: Path, run: dict[str, Any]) -> "Journal":
        """Return the newest journal of a broken run with this identity; raises InputError where there is none."""
        others = []
        for path in reversed(broken(folder)):
            try:
                journal = cls(path, [])
            except OSError:  # it is not broken, but running (Timeout), or of a user who alone may write to it
                continue
            header, said, whole = _read(path)  # once it is held: until then another may add to it
            differing = [field for field, value in run.items() if header.get(field) != value]
            if not differing:
                os.truncate(path, whole)
                journal.said = [visit for visit in said if visit.name in run["cases"]]
                return journal
            journal.close(is_saved=False)
            others.append(f"{path.name} has other {' and other '.join(differing)}")
        found = "; ".join(others) or "none"
        raise InputError(f"expected a broken run of these cases, code and machine in {folder}, got {found}")

    def add(self, process: int, name: str, said: dict[str, Any]) -> None:
        """Keep what a process said of a case."""
        self._write({"process": process, "name": name, "said": said})

    def _write(self, line: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # a full disk takes --resume away and not the run
            self._file.write(json.dumps(line, separators=(",", ":")) + "\n")
            self._file.flush()  # to the system: nothing short of its own end loses it

    def close(self, *, is_saved: bool) -> None:
        """Let go of the journal, and remove it where what it holds is saved."""
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            if is_saved:
                self.path.unlink()
            self.path.with_suffix(".lock").unlink()
        self._lock.release()


def broken(folder: Path) -> list[Path]:
    """Return the journals in a folder that no run holds, oldest first."""
    return [path for path in sorted(folder.glob(".run-*.jsonl")) if not _is_held(path)]


def _is_held(path: Path) -> bool:
    try:
        FileLock(path.with_suffix(".lock"), timeout=0).acquire().lock.release()
    except OSError:  # Timeout is one; where nothing can be written, nobody can go on with it
        return True
    return False


def _read(path: Path) -> tuple[dict[str, Any], list[Said], int]:
    """Return a journal's header, what was said, and how many of its bytes are whole lines."""
    lines = _lines(path.read_bytes())
    header, whole = next(lines, ({}, 0))
    visits = []
    for line, length in lines:
        match line:
            case {"process": int(process), "name": str(name), "said": {"failure": _}}:
                pass  # it is measured again
            case {"process": int(process), "name": str(name), "said": dict() as said} if _is_visit(said):
                visits.append(Said(process, name, said))
            case _:  # written by something else; what comes after it is no surer
                break
        whole += length
    return header, visits, whole


class _Visit(msgspec.Struct):
    known: dict[str, Any]
    race: Race
    facts: dict[str, Any]
    spent: dict[str, float]


def _is_visit(said: dict[str, Any]) -> bool:
    """Tell whether it is what a process says of a case that it has measured."""
    try:
        race = msgspec.convert(said, _Visit).race
    except msgspec.ValidationError:
        return False
    times = [*race.seconds, *race.dense_seconds, *race.later]
    is_whole = len(race.seconds) == len(race.dense_seconds) and len(race.later) == len(race.later_waited)
    return is_whole and all(0 < seconds < math.inf for seconds in times)


def _lines(content: bytes) -> Iterator[tuple[dict[str, Any], int]]:
    for line in content.splitlines(keepends=True):
        if not line.endswith(b"\n"):
            return
        try:
            read = json.loads(line)
        except (ValueError, RecursionError):
            return
        if not isinstance(read, dict):
            return
        yield read, len(line)
