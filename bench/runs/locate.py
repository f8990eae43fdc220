"""What a user calls runs in, the saved runs out: a path, a number, a glob, a folder, or any of these on a remote storage.

Remote ones go through fsspec (s3://, gs://, memory:// and what else it knows). A file that is no run is named and skipped. A
number is that of a run of this machine, where it has all numbers that are asked for, and else of whatever machine has it.
"""

import glob
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from bench.machine.facts import facts
from bench.machine.fingerprint import fingerprint
from bench.runs.files import read_whole
from bench.runs.plain_text import printable
from bench.runs.reading import parse
from bench.runs.remote import find, is_remote, read, why
from bench.runs.saved import Run
from sparse_models.errors import InputError

STORAGE = ".benchmarks"
Found = tuple[str, bytes | str]  # a file's name with its content or, where it has none, why


def read_runs(asked: Sequence[str], storage: str = STORAGE) -> tuple[list[Run], list[str]]:
    """Return the runs that are asked for, oldest first, and a line for each file that is none.

    Raises InputError, one sentence, where something asked for matches no file, or none of its files is a run.
    """
    runs: dict[str, Run] = {}
    skipped: dict[str, str] = {}
    own = _own_folder([one for one in asked if _is_number(one)], storage)
    for one in asked:
        is_found, why_not = False, []
        for name, content in _read(f"{own}{int(one):04}_*" if _is_number(one) else one, storage):
            try:
                if isinstance(content, str):
                    raise InputError(content)
                runs[name] = parse(printable(name), content)
                is_found = True
            except InputError as error:
                skipped[name] = f"skipped {printable(name)}: {error}"
                why_not.append(skipped[name])
        if why_not and not is_found:
            raise InputError("\n".join([f"expected a saved run, got none of {printable(one)!r} that can be read", *why_not]))
        if not is_found:
            raise InputError(
                f"expected a saved run by path, number or glob, got {printable(one)!r} and found none; "
                f"`ls {printable(storage)}/*` shows what is there"
            )
    return sorted(runs.values(), key=lambda run: (run.time, run.name)), list(skipped.values())


def _places(asked: str, storage: str) -> tuple[list[str], list[Path]]:
    """Return the URLs and the paths of the files that are meant, none of which is read yet."""
    if not asked:  # to pathlib that is all that lies here
        return [], []
    if is_remote(asked):
        return find(asked), []
    if is_remote(storage) and not _exists(asked.removeprefix("file://")):
        return find(storage, asked), []
    try:
        return [], _local(asked.removeprefix("file://"), Path(storage.removeprefix("file://")))
    except (OSError, ValueError) as error:  # a name that is too long, a glob that is none
        raise InputError(f"expected a saved run by path, number or glob, got {printable(asked)!r}: {why(error)}") from None


def _read(asked: str, storage: str) -> Iterator[Found]:
    urls, paths = _places(asked, storage)
    yield from read(urls)
    for path in paths:
        try:
            yield str(path), read_whole(path)
        except InputError as error:
            yield str(path), str(error)


@cache
def own_folders() -> list[str]:
    """Return the folders in which runs of this machine are saved: a GPU's are apart."""
    return list(dict.fromkeys(fingerprint(facts([device])) for device in ("cpu", "cuda")))


def _is_number(asked: str) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,9}", asked)) and not _exists(asked)


def _own_folder(numbers: Sequence[str], storage: str) -> str:
    """Return the folder of this machine that has runs of all these numbers, with a slash; nothing where none has."""
    for folder in own_folders() if numbers else ():
        if all(any(_places(f"{folder}/{int(number):04}_*", storage)) for number in numbers):
            return f"{folder}/"
    return ""


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # a name that is too long, or of other characters than names have
        return False


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
