"""The end of the screen: the short answer, below everything else that is told of a run."""

from collections.abc import Generator
from typing import Any

import pytest

from bench.findings.short_answer import short_answer
from bench.hooks.screen import machine_of, screen_of
from bench.hooks.state import REPORTED
from bench.tables.short_answer import lines


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Silence pytest and pytest-benchmark where the answer alone is asked for, before the latter reads its options."""
    if config.option.answer_only:
        config.option.verbose = min(config.option.verbose, -1)
        config.option.benchmark_quiet = True


@pytest.hookimpl(tryfirst=True)
def pytest_report_teststatus(report: pytest.TestReport, config: pytest.Config) -> tuple[str, str, str] | None:
    """Count a case that passed and write nothing of it, where the answer alone is asked for."""
    is_quiet = config.option.answer_only and report.passed and report.when == "call"
    return ("passed", "", "") if is_quiet else None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> Generator[None]:
    """Print the short answer after what every other hook prints."""
    try:
        return (yield)
    finally:
        rows = list(config.stash[REPORTED].values())
        if rows:
            terminalreporter.section("the short answer")
            for line in lines(short_answer(rows, machine_of(config)), screen_of(terminalreporter)):
                terminalreporter.write_line(line)
