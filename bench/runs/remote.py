"""Runs on a storage that fsspec knows: s3://, gs://, memory:// and all others whose library is installed.

An object is written whole or not at all by the storage itself. There is no lock on one, so a run's name has random digits
beside its number, and two runs that take one number are still two.
"""

import glob
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fsspec.core import url_to_fs
from pytest_benchmark.stats import normalize_stats

from bench.runs.compact import compact
from bench.runs.files import MAX_BYTES, as_json
from bench.runs.plain_text import printable
from bench.runs.storage import check_plain, next_number
from sparse_models.errors import InputError

AT_ONCE = 16  # files


def is_remote(place: str) -> bool:
    """Tell whether a place is a URL of a storage that is not this machine's."""
    return "://" in place.removeprefix("file://")


def find(url: str, pattern: str = "") -> list[str]:
    """Return the URLs of the files that a URL names, or of those below it whose name matches; raises InputError."""
    with _told(url):
        files, place = url_to_fs(url)
        if pattern:
            paths = files.glob(f"{place}/**/{pattern.removesuffix('.json').rstrip('*')}*.json")
        elif glob.has_magic(place):
            paths = files.glob(place)
        else:
            paths = [place] if files.isfile(place) else [path for path in files.find(place) if path.endswith(".json")]
        return sorted(files.unstrip_protocol(path) for path in paths)


def read(urls: list[str]) -> Iterator[tuple[str, bytes | str]]:
    """Yield each file's content or, where it has none, why; no more of a file is read than shows that it is too large."""
    for start in range(0, len(urls), AT_ONCE):
        some = urls[start : start + AT_ONCE]
        with _told(some[0]):
            files, _ = url_to_fs(some[0])
            places = [url_to_fs(url)[1] for url in some]
            contents = files.cat_ranges(places, [0] * len(some), [MAX_BYTES + 1] * len(some), on_error="return")
        for url, content in zip(some, contents, strict=True):
            yield url, content if isinstance(content, bytes) else why(content)


class RemoteStorage:
    """A storage of runs at a URL, as pytest-benchmark's session uses one."""

    def __init__(self, url: str, logger: Any, machine: str, notes: list[str]) -> None:
        """Keep runs below `url` in the folder `machine`; add to `notes` a line for each file that is skipped."""
        self.url, self.logger, self.machine, self.notes = url.rstrip("/"), logger, machine, notes
        self.failed: list[str] = []  # a line for each run that could not be written

    def __str__(self) -> str:
        """Return where runs are."""
        return self.url

    @property
    def location(self) -> str:
        """Where runs are."""
        return self.url

    def newest(self, asked: str | None) -> Iterator[tuple[str, str, bytes | str]]:
        """Yield name, URL and content (or why there is none) of the runs that match, newest first: this machine's, if any."""
        where = self.url if asked else f"{self.url}/{self.machine}"
        for url in reversed(find(asked) if asked and is_remote(asked) else find(where, asked or "[0-9][0-9][0-9][0-9]_")):
            [(_, content)] = read([url])
            yield printable(url), url, content

    def check(self) -> None:
        """Raise InputError, one sentence, where the storage cannot be reached."""
        find(self.url, "[0-9]")

    def save(self, output_json: dict[str, Any], save: str) -> None:
        """Save a run under the next number."""
        try:
            folder = f"{self.url}/{self.machine}"
            number = next_number(url.rpartition("/")[2] for url in find(folder, "[0-9]"))
            url = f"{folder}/{number}_{save}-{secrets.token_hex(3)}.json"
            with _told(self.url):
                files, place = url_to_fs(url)
                files.makedirs(place.rpartition("/")[0], exist_ok=True)  # where folders are more than names
                files.pipe_file(place, as_json(compact(output_json)))
        except InputError as error:
            self.failed.append(f"the run was not saved: {error}")
        else:
            self.logger.info(f"Saved benchmark data in: {url}")  # noqa: G004  # it is no logging.Logger

    def load(self, *asked: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the runs that match, with where they are; name and skip what pytest-benchmark's tables could not show."""
        for one in asked or ("",):
            for name, url, content in reversed(list(self.newest(one or None))):
                try:
                    if isinstance(content, str):
                        raise InputError(content)
                    check_plain(content)
                except InputError as error:
                    self.notes.append(f"skipped {name}: {error}")
                    continue
                run = json.loads(content)
                for benchmark in run["benchmarks"]:
                    normalize_stats(benchmark["stats"])  # as pytest-benchmark's own storage does: what follows from others
                yield url, run


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Turn whatever a storage, its library or the network fails with into one sentence."""
    try:
        yield
    except Exception as error:
        raise InputError(f"expected a storage that can be used, got {printable(url)}: {why(error)}") from None


def why(error: Any) -> str:
    """Return the first line of what a library says of its failure."""
    return printable(str(error).strip().partition("\n")[0] or type(error).__name__)
