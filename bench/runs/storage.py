"""Runs are saved whole or not at all, in a folder named after the machine, each under a number of its own.

pytest-benchmark's own storage writes into the file that others read, takes a number without a lock, and files different
computers in one folder. This one writes aside, syncs and renames, and takes its number under a lock that ends with its process.
"""

import contextlib
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from filelock import FileLock, Timeout
from pytest_benchmark.storage.file import FileStorage

from bench.runs.compact import compact
from bench.runs.files import as_json, check_folder, read_whole, write_whole
from bench.runs.plain_text import Text, printable
from sparse_models.errors import InputError

LOCK_SECONDS = 60.0
FIGURES = ("min", "max", "mean", "stddev", "rounds", "median", "iqr", "q1", "q3", "iterations")
RESTORED = {"ops"}  # by pytest-benchmark, where it is left out


class _Benchmark(msgspec.Struct):
    """What pytest-benchmark's tables take for granted of a saved case."""

    name: Text
    fullname: Text
    group: Text | None
    stats: dict[str, msgspec.Raw]


class _File(msgspec.Struct):
    benchmarks: list[_Benchmark]
    machine_info: dict[str, Any]


_FILE = msgspec.json.Decoder(_File)


class RunStorage(FileStorage):
    """pytest-benchmark's storage of files, with a folder for each machine, that loses nothing and is taken down by nothing."""

    def __init__(self, path: Path, logger: Any, machine: str, notes: list[str]) -> None:
        """Keep runs below `path` in the folder `machine`; add to `notes` a line for each file that is skipped."""
        super().__init__(path, logger, default_machine_id=machine)  # type: ignore[no-untyped-call]
        self.path: Path
        self.notes = notes
        self.failed: list[str] = []  # a line for each file that could not be written
        self.saved: list[Path] = []

    @property
    def location(self) -> str:
        """Where runs are; pytest-benchmark's own fails outside of the working directory."""
        return str(self.path)

    @property
    def folder(self) -> Path:
        """The machine's folder."""
        return self.path / str(self.default_machine_id)

    def name_of(self, path: Path) -> str:
        """Return a run's path for the user, from the storage on."""
        return printable(str(path.relative_to(self.path) if path.is_relative_to(self.path) else path))

    def newest(self, asked: str | None) -> Iterator[tuple[str, str, bytes | str]]:
        """Yield name, path and content (or why there is none) of the runs that match, newest first: this machine's, if any.

        Raises ValueError, one sentence, for what cannot name a run.
        """
        for path in reversed(self.query(asked or "[0-9][0-9][0-9][0-9]_")):  # type: ignore[no-untyped-call]
            try:
                content: bytes | str = read_whole(path)
            except InputError as error:
                content = str(error)
            yield self.name_of(path), str(path), content

    def check(self) -> None:
        """Raise InputError, one sentence, where no run can be saved."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            told = f"{printable(str(self.folder))}: {error.strerror}"
            raise InputError(f"expected a folder that can be made, got {told}") from None
        check_folder(self.folder)

    def save(self, output_json: dict[str, Any], save: str) -> None:
        """Save a run under the next number; two runs at once take two numbers."""
        try:
            path = save_numbered(self.folder, save, as_json(compact(output_json)))
        except (OSError, Timeout) as error:
            self.failed.append(f"the run was not saved in {self.folder}: {error}")
        else:
            self.saved.append(path)
            self.logger.info(f"Saved benchmark data in: {path}")  # noqa: G004  # it is no logging.Logger

    def put(self, path: Path, output_json: dict[str, Any]) -> None:
        """Save a run where --benchmark-json says, for other programs: each row is whole, in its case's `extra_info`."""
        try:
            write_whole(path, as_json(output_json))
        except OSError as error:
            self.failed.append(f"the run was not saved as {path}: {error}")
        else:
            self.logger.info(f"Wrote benchmark data in: {path}")  # noqa: G004  # nor here

    def load(self, *globs_or_files: str) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Yield the runs that match, with where they are; name and skip what pytest-benchmark's tables could not show."""
        for path in self.query(*globs_or_files or ("[0-9][0-9][0-9][0-9]_",)):  # type: ignore[no-untyped-call]
            try:
                check_plain(read_whole(path))
            except InputError as error:
                if not any(note.startswith(f"skipped {self.name_of(path)}:") for note in self.notes):
                    self.notes.append(f"skipped {self.name_of(path)}: {error}")
                continue
            yield from super().load(str(path))  # type: ignore[no-untyped-call]


def save_numbered(folder: Path, name: str, content: bytes) -> Path:
    """Write a run as NNNN_name.json, N one above the highest number in the folder, and return where."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock", timeout=LOCK_SECONDS):
        path = folder / f"{next_number(other.name for other in folder.iterdir())}_{name}.json"
        _clear(folder)
        write_whole(path, content)
    return path


def next_number(names: Iterable[str]) -> str:
    """Return the number that the next run's name begins with, one above the highest of these files' names."""
    taken = [int(found[1]) for name in names if (found := re.fullmatch(r"([0-9]{4,18})_.*\.json", name))]
    return f"{max(taken, default=0) + 1:04}"


def _clear(folder: Path) -> None:
    """Remove what savers that were killed had begun: nothing that is still being written is as old."""
    for begun in folder.glob(".*.json.*.part"):
        with contextlib.suppress(OSError):
            if time.time() - begun.stat().st_mtime > LOCK_SECONDS:
                begun.unlink()


def check_plain(content: bytes) -> None:
    """Raise InputError, one sentence, for content that pytest-benchmark's own comparison would fail on."""
    try:
        file = _FILE.decode(content)
        for benchmark in file.benchmarks:
            read = (*FIGURES, *(benchmark.stats.keys() & RESTORED))
            figures = {name: msgspec.json.decode(benchmark.stats[name], type=float) for name in read}
            if not all(figure >= 0 for figure in figures.values()) or figures["mean"] == 0:
                raise InputError(f"{benchmark.name}: expected times above 0")
    except RecursionError:
        raise InputError("nested too deeply") from None
    except KeyError as error:
        raise InputError(f"a case without {error}") from None
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise InputError(printable(str(error))) from None
