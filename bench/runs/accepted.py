"""Steps that someone looked at and accepts, with the reason, in a file beside the runs that is reviewed as code is."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated

import msgspec
from msgspec import Meta

from bench.runs.files import read_whole, write_whole
from bench.runs.plain_text import Text, printable
from bench.runs.remote import is_remote
from bench.runs.saved import Run
from sparse_models.errors import InputError

FILE = "accepted.json"
MOST = 300  # characters of a reason


class Accepted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One step: the case, the run from which on its level is another, and why that is as it should be."""

    case: Text
    machine: Text
    commit: Text
    run_time: Text
    reason: Annotated[str, Meta(min_length=1, max_length=MOST)]
    date: Text

    @property
    def step(self) -> tuple[str, str, str, str]:
        """What tells the step from all others."""
        return self.case, self.machine, self.commit, self.run_time


def step_of(case: str, run: Run) -> tuple[str, str, str, str]:
    """Return what tells the step of a case at a run from all others."""
    return case, run.machine, run.commit, run.time


def path_of(storage: str) -> Path | None:
    """Return where a storage's accepted steps are; None for a remote one, which has none."""
    return None if is_remote(storage) else Path(storage.removeprefix("file://")) / FILE


def read(storage: str) -> list[Accepted]:
    """Return the accepted steps of a storage; raises InputError, one sentence, for a file that is damaged."""
    path = path_of(storage)
    if path is None or not path.exists():
        return []
    try:
        return msgspec.json.decode(read_whole(path), type=list[Accepted])
    except (InputError, msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise InputError(
            f"expected a list of accepted steps, got {printable(str(path))}: {printable(str(error))}; mend or remove it"
        ) from None


def add(storage: str, new: Iterable[Accepted]) -> Path:
    """Put steps beside those that are accepted, in place of older entries on the same ones, and return where."""
    path = path_of(storage)
    if path is None:
        raise InputError(f"expected a local storage, got {printable(storage)}; accept steps where its runs are files")
    known = {one.step: one for one in (*read(storage), *new)}
    content = msgspec.json.encode([known[step] for step in sorted(known)])
    try:
        write_whole(path, msgspec.json.format(content, indent=1) + b"\n")
    except OSError as error:
        raise InputError(f"expected a folder to write {FILE} in, got {printable(storage)}: {error.strerror}") from None
    return path


def called(named: str, runs: Sequence[Run]) -> list[Run]:
    """Return the runs that a number, a name or else the beginning of a commit stands for."""
    names = {id(run): PurePosixPath(run.name).name for run in runs}
    number = f"{int(named):04}_" if re.fullmatch(r"[0-9]{1,9}", named) else None
    meant = [run for run in runs if number and names[id(run)].startswith(number)]
    meant = meant or [run for run in runs if named in (run.name, names[id(run)], names[id(run)].removesuffix(".json"))]
    return meant or [run for run in runs if len(named) >= 4 and run.commit.startswith(named)]
