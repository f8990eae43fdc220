"""What a user calls runs in, the saved runs out: a path, a number, a glob, a folder, or any of these on a remote storage.

Remote ones go through fsspec (s3://, gs://, memory:// and what else it knows). A file that is no run is named and skipped.
"""

import glob
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs

from bench.runs import MAX_BYTES, Run, parse, printable
from bench.storage import read_whole
from sparse_models.errors import InputError

STORAGE = ".benchmarks"
AT_ONCE = 16  # remote files
Found = tuple[str, bytes | str]  # a file's name with its content or, where it has none, why


def read_runs(asked: Sequence[str], storage: str = STORAGE) -> tuple[list[Run], list[str]]:
    """Return the runs that are asked for, oldest first, and a line for each file that is none.

    Raises InputError, one sentence, where something asked for matches no file, or no file is a run.
    """
    runs: dict[str, Run] = {}
    skipped: dict[str, str] = {}
    for one in asked:
        before = len(runs) + len(skipped)
        for name, content in _read(one, storage):
            try:
                if isinstance(content, str):
                    raise InputError(content)
                runs[name] = parse(printable(name), content)
            except InputError as error:
                skipped[name] = f"skipped {printable(name)}: {error}"
        if len(runs) + len(skipped) == before and not any(one == name for name in (*runs, *skipped)):
            raise InputError(
                f"expected a saved run by path, number or glob, got {printable(one)!r} and found none; "
                f"`ls {printable(storage)}/*` shows what is there"
            )
    if not runs:
        raise InputError("\n".join(["expected a saved run, got none that can be read", *skipped.values()]))
    return sorted(runs.values(), key=lambda run: (run.time, run.name)), list(skipped.values())


def _read(asked: str, storage: str) -> Iterator[Found]:
    if "://" in asked.removeprefix("file://"):
        yield from _remote(asked, "")
        return
    if re.fullmatch(r"\d{1,4}", asked) and not Path(asked).exists():
        asked = f"{int(asked):04}_*"
    if "://" in storage.removeprefix("file://"):
        yield from _remote(storage, asked)
        return
    for path in _local(asked.removeprefix("file://"), Path(storage.removeprefix("file://"))):
        try:
            yield str(path), read_whole(path)
        except InputError as error:
            yield str(path), str(error)


def _local(asked: str, storage: Path) -> list[Path]:
    path = Path(asked)
    if path.is_dir():
        return sorted(path.rglob("*.json"))
    if path.exists():
        return [path]
    found = {Path(match) for match in glob.glob(asked, recursive=True)}
    for pattern in () if path.is_absolute() or ".." in path.parts else (asked, f"*/{asked}"):
        found.update(storage.glob(pattern.removesuffix(".json").rstrip("*") + "*.json"))
    return sorted(match for match in found if not match.is_dir())


def _remote(url: str, pattern: str) -> Iterator[Found]:
    """Yield the files that a URL names, or those below it whose name matches a pattern."""
    try:
        files, place = url_to_fs(url)
        if pattern:
            paths = files.glob(f"{place}/**/{pattern.removesuffix('.json').rstrip('*')}*.json")
        elif glob.has_magic(place):
            paths = files.glob(place)
        else:
            paths = [place] if files.isfile(place) else [path for path in files.find(place) if path.endswith(".json")]
        paths = sorted(paths)
        for start in range(0, len(paths), AT_ONCE):
            some = paths[start : start + AT_ONCE]
            contents = files.cat_ranges(some, [0] * len(some), [MAX_BYTES + 1] * len(some), on_error="return")
            for path, content in zip(some, contents, strict=True):
                yield files.unstrip_protocol(path), content if isinstance(content, bytes) else _why(content)
    except Exception as error:  # whatever a storage, its library or the network fails with
        raise InputError(f"expected a storage that can be read, got {printable(url)}: {_why(error)}") from None


def _why(error: Any) -> str:
    return printable(str(error).strip().partition("\n")[0] or type(error).__name__)
