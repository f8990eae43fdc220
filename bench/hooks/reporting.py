"""The report of a run, written once the run is saved, and the last line of the screen, which says where it lies."""

import glob
from collections.abc import Generator
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.utils import get_commit_info

from bench.hooks.state import FOLDER, MACHINE, OUTCOMES, REPORTED, SAVED
from bench.report.content import content_of
from bench.report.render import vega
from bench.report.write import check, write
from bench.runs import accepted
from bench.runs.locate import read_runs
from bench.runs.plain_text import printable
from bench.runs.reading import run_of
from bench.runs.saved import Run
from sparse_models.errors import InputError

PAGE = "report.html"  # in the folder of the machine's runs, always of the newest
BEFORE = 30  # older runs at most, newest first, that the page sets beside this one


def pytest_sessionstart(session: pytest.Session) -> None:
    """Raise pytest.UsageError, before anything is measured, where no report could be written in the end."""
    asked = session.config.getoption("--report")
    try:
        if asked:
            vega()
        if isinstance(asked, str):
            check(Path(asked))
    except InputError as error:
        raise pytest.UsageError(f"--report: {error}") from None
    # pytest-benchmark would find out once all is measured, and end in a traceback.
    if session.config.option.benchmark_histogram and find_spec("pygal") is None:
        raise pytest.UsageError(
            "--benchmark-histogram: expected pygal, which draws it, got none; pip install 'pytest-benchmark[histogram]' brings "
            "it, and --report writes a page with figures without it"
        )


def failures(config: pytest.Config) -> dict[str, str]:
    """Return why a case has no figures, by its name, for those that failed."""
    return {name: one.failure for name, one in config.stash.get(OUTCOMES, {}).items() if one.failure}


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    """Save why cases failed beside what was measured."""
    if failed := failures(config):
        output_json["failures"] = failed


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> Generator[None]:
    """Write the report, and say where it lies, after what every other hook prints."""
    try:
        return (yield)
    finally:
        if config.getoption("--report") and config.stash.get(OUTCOMES, {}):
            try:
                terminalreporter.write_line(f"The report: {_written(config)}")
            except InputError as error:  # what was measured is saved, and the run is none the worse
                terminalreporter.write_line(f"no report: {error}")


def _written(config: pytest.Config) -> Path:
    asked, folder = config.getoption("--report"), config.stash[FOLDER]
    path = folder / PAGE if asked is True else Path(asked)
    path.parent.mkdir(parents=True, exist_ok=True)
    there = any(folder.glob("[0-9]*.json"))
    runs, skipped = read_runs([f"{glob.escape(str(folder))}/[0-9]*.json"]) if there else ([], [])
    runs = [*runs[-BEFORE:], *([] if config.stash[SAVED] else [_this(config)])]
    known = {one.step: one.reason for one in accepted.read(str(folder.parent))}
    write(content_of(runs, known, skipped), [path])
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _this(config: pytest.Config) -> Run:
    """Return the run of this session, which is not saved."""
    now = datetime.now(timezone.utc).isoformat()
    machine, rows = config.stash[MACHINE], config.stash[REPORTED]
    run = run_of("this run, which is not saved", now, get_commit_info(), machine, rows)
    told = {printable(name): printable(why) for name, why in failures(config).items()}
    return run._replace(failures=told)
