"""The line of progress: one that is written over on a terminal, a few in a file, none where it is quiet."""

from types import SimpleNamespace
from typing import Any

import pytest

from bench.hooks import progress
from bench.hooks.progress import EVERY_SECONDS_IN_A_FILE, Progress


class Terminal:
    """What of pytest's reporter is written with, and what was."""

    def __init__(self, *, isatty: bool, width: int = 20) -> None:
        self.isatty, self.written, self._tw = isatty, "", SimpleNamespace(fullwidth=width)

    def write(self, text: str, *, flush: bool) -> None:
        assert flush
        self.written += text

    def write_line(self, text: str) -> None:
        self.written += f"{text}\n"


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock's last reading, to be set."""
    time = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: time[-1])  # type: ignore[attr-defined]
    return time


def shown(terminal: Any, now: list[float], *at: float, is_quiet: bool = False) -> Progress:
    line = Progress(terminal, is_quiet=is_quiet)
    for time in at:
        now.append(now[0] + time)
        line.show(f"at {time:g} s")
    return line


def test_on_a_terminal_each_line_takes_the_place_of_the_one_before(now: list[float]) -> None:
    terminal = Terminal(isatty=True)
    line = shown(terminal, now, 0.0, 0.01, 12.5, 13.0)
    assert terminal.written == "\rat 0 s" + "\rat 12.5 s" + "\rat 13 s  "  # the second came too soon
    line.clear()
    assert terminal.written.endswith("\r" + " " * 7 + "\r")
    before = terminal.written
    line.clear()
    assert terminal.written == before


def test_a_line_is_not_longer_than_the_terminal(now: list[float]) -> None:
    terminal = Terminal(isatty=True, width=5)
    shown(terminal, now, 12.5)
    assert terminal.written == "\rat 1"


def test_in_a_file_there_is_a_line_now_and_then(now: list[float]) -> None:
    terminal = Terminal(isatty=False)
    shown(terminal, now, 1.0, EVERY_SECONDS_IN_A_FILE, EVERY_SECONDS_IN_A_FILE + 1, 2 * EVERY_SECONDS_IN_A_FILE).clear()
    assert terminal.written == "at 30 s\nat 60 s\n"


def test_quiet_is_quiet(now: list[float]) -> None:
    terminal = Terminal(isatty=True)
    shown(terminal, now, 1.0, 2.0, is_quiet=True).clear()
    assert terminal.written == ""
