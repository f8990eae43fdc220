"""What stands between pytest-benchmark and the suite: where runs are saved, which are compared, and what fails the build.

pytest-benchmark's session has no public interface. All that is taken of it is taken here: its `storage`, `machine_id`,
`compare`, `json`, `logger`, `save_json` and `handle_loading`. A test holds a new version of it to them.
"""

from collections.abc import Generator
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.storage.file import FileStorage
from pytest_benchmark.utils import get_commit_info

from bench.comparisons.comparison import compare
from bench.comparisons.gate import SHOWN, failures
from bench.comparisons.machines import machines_of
from bench.hooks.asked import was_asked
from bench.hooks.options import not_for_train, read_compared, read_gate
from bench.hooks.screen import fitted, screen_of
from bench.hooks.state import (
    COMPARED,
    DESELECTED,
    FAILED,
    FOLDER,
    GATE,
    INTERRUPTED,
    JOURNAL,
    MACHINE,
    NOTES,
    REPORTED,
    SAVED,
    SELECTION,
    Compared,
)
from bench.machine.facts import facts
from bench.machine.fingerprint import fingerprint
from bench.runs.files import check_folder
from bench.runs.locate import STORAGE
from bench.runs.plain_text import printable
from bench.runs.reading import parse, run_of
from bench.runs.remote import RemoteStorage, is_remote
from bench.runs.saved import arm_of
from bench.runs.storage import RunStorage
from bench.shapes import for_no_data
from bench.tables.comparison import text
from bench.tables.machines import lines as machines_lines
from sparse_models.errors import InputError

ASKED = pytest.StashKey[Any]()  # --benchmark-compare
REMOTE = pytest.StashKey[str]()  # --benchmark-storage, where it is a URL of fsspec's
WRITERS = pytest.StashKey[list[Any]]()  # what may have failed to write


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Take --benchmark-compare over from pytest-benchmark, which would load runs before its storage is replaced."""
    config.stash[NOTES], config.stash[FAILED], config.stash[DESELECTED] = [], [], set()
    config.stash[INTERRUPTED] = False
    config.stash[GATE] = read_gate(config)
    url = config.option.benchmark_storage
    if url.startswith("elasticsearch+") and find_spec("elasticsearch") is None:
        raise pytest.UsageError(
            "--benchmark-storage: expected the package elasticsearch, got none; pip install pytest-benchmark[elasticsearch]"
        )
    config.stash[REMOTE] = url if is_remote(url) and not url.startswith("elasticsearch+") else ""
    if config.stash[REMOTE]:  # which pytest-benchmark does not know
        config.option.benchmark_storage = STORAGE
    config.stash[ASKED], config.option.benchmark_compare = read_compared(config), []


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Give pytest-benchmark a storage with a folder for this machine that saves whole files, and load what is compared."""
    config = session.config
    for option in not_for_train(config, config.stash[SELECTION]):
        config.stash[NOTES].append(f"{option} is not for train: trainings have their own")
    unfit = for_no_data(config.stash[SELECTION])
    if unfit is not None:
        config.stash[NOTES].append(f"not for train: {unfit}")
    if config.option.benchmark_disable:
        return
    own: Any = config._benchmarksession  # type: ignore[attr-defined]
    is_local = isinstance(own.storage, FileStorage)  # and not on a server, which has a way of its own
    machine = fingerprint(facts(config.stash[SELECTION].devices))
    local = RunStorage(own.storage.path if is_local else Path(STORAGE).resolve(), own.logger, machine, config.stash[NOTES])
    config.stash[FOLDER] = local.folder
    if is_local:
        remote = config.stash[REMOTE]
        own.storage = RemoteStorage(remote, own.logger, machine, config.stash[NOTES]) if remote else local
        own.machine_id = machine
    own.save_json = lambda content: local.put(own.json, content)
    config.stash[WRITERS], config.stash[SAVED] = [local, own.storage], local.saved
    if not config.option.collectonly:
        _check_places(own, own.storage if is_local else None)
    if config.stash[ASKED]:
        _load(config, own, own.storage if is_local else local)


def _check_places(own: Any, storage: RunStorage | RemoteStorage | None) -> None:
    """Raise pytest.UsageError, before anything is measured, where the run could not be written in the end."""
    try:
        if own.json and not own.json.exists():
            check_folder(own.json.parent)
    except InputError as error:
        raise pytest.UsageError(f"--benchmark-json: {error}") from None
    try:
        if storage and (own.save or own.autosave):
            storage.check()
    except InputError as error:
        raise pytest.UsageError(f"--benchmark-storage: {error}") from None


def _load(config: pytest.Config, own: Any, storage: RunStorage | RemoteStorage) -> None:
    """Find the newest run that is asked for, for the suite's comparison, and let pytest-benchmark load it for its own."""
    asked, notes = config.stash[ASKED], config.stash[NOTES]
    own.compare = asked
    try:
        for name, place, content in storage.newest(None if asked is True else asked):
            try:
                if isinstance(content, str):
                    raise InputError(content)
                config.stash[COMPARED] = Compared(parse(name, content))
            except InputError as error:
                notes.append(f"skipped {name}: {error}")
                continue
            own.compare = place if asked is True else asked
            break
    except ValueError as error:
        raise pytest.UsageError(f"--benchmark-compare: {error}") from None
    if COMPARED not in config.stash and config.stash[GATE]:
        found = "".join(f"; {note}" for note in notes)
        raise pytest.UsageError(f"--fail-slower: expected a saved run of this suite to compare with, got none{found}")
    own.handle_loading()


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Remember what is in the grid and was not asked for: that is not gone."""
    for item in items:
        item.config.stash[DESELECTED].add(arm_of(item.nodeid))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Say where to find what -k or the name of a case asks for, if the default grid has none of it."""
    config = session.config
    if not session.items and config.stash[DESELECTED] and not config.stash[SELECTION].is_full:
        config.stash[NOTES].append(
            "nothing of the default grid is called so; --grid full has every operation, layer and sparsity"
        )


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Once the run is saved: compare it, let go of its journal, and fail the build where it is slower."""
    config = session.config
    stash = config.stash
    if COMPARED in stash:
        try:
            _compare(config)
        except (InputError, ValueError) as error:  # rows that nothing can be compared with
            stash[FAILED].append(f"the comparison failed: {printable(str(error))}")
    writers: list[Any] = stash.get(WRITERS, [])
    failed = list(dict.fromkeys(line for one in writers for line in getattr(one, "failed", [])))  # most often both are one
    stash[FAILED].extend(failed)
    if JOURNAL in stash:
        is_whole = not (stash[INTERRUPTED] or failed or session.shouldstop or session.shouldfail)
        stash[JOURNAL].close(is_saved=is_whole)
        if not is_whole:
            stash[NOTES].append("what was measured is kept: --resume goes on with it")
    if stash[FAILED] and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _compare(config: pytest.Config) -> None:
    stash = config.stash
    old, limits = stash[COMPARED].old, stash[GATE]
    machine, rows = stash.get(MACHINE, {}), stash[REPORTED]
    if not rows:
        if limits:
            stash[FAILED].append(f"nothing was measured that {old.label} could be compared with")
        return
    now = datetime.now(timezone.utc).isoformat()
    new = run_of("this run", now, get_commit_info(), machine, rows)
    comparison = compare(old, new, asked=lambda name, row: was_asked(config, name, row))
    stash[COMPARED] = Compared(old, comparison)
    if limits:
        stash[FAILED].extend(failures(comparison, limits))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> Generator[None]:
    """Print, after all other tables, what changed, what was skipped, and what fails the build."""
    try:
        return (yield)
    finally:
        for line in _summary(terminalreporter, config):
            terminalreporter.write_line(line)


def _summary(terminal: Any, config: pytest.Config) -> Generator[str]:
    stash = config.stash
    comparison = stash[COMPARED].comparison if COMPARED in stash else None
    if comparison is not None:
        terminal.section("what changed?")
        screen = screen_of(terminal)
        yield from text(comparison, screen)
        if not comparison.is_sound:
            yield from machines_lines(machines_of([comparison.old, comparison.new]), screen)
    for note in stash[NOTES]:
        yield from fitted(terminal, note)
    failed = stash[FAILED]
    if failed:
        terminal.section("the build fails", sep="-", red=True)
        for reason in failed[:SHOWN]:
            yield from fitted(terminal, reason)
        if len(failed) > SHOWN:
            yield f"and {len(failed) - SHOWN} more"
