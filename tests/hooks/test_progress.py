"""The line of progress: one that is written over on a terminal, a few in a file, none where it is quiet."""

import pytest

from bench.hooks import progress
from bench.hooks.progress import EVERY_SECONDS_IN_A_FILE, Progress


class Terminal:
    """What is written to, and what was."""

    def __init__(self, width: int | None = 20) -> None:
        self.width, self.written = width, ""

    def write(self, text: str) -> None:
        self.written += text


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock's last reading, to be set."""
    time = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: time[-1])  # type: ignore[attr-defined]
    return time


def shown(terminal: Terminal, now: list[float], *at: float, is_quiet: bool = False) -> Progress:
    line = Progress(terminal.write, terminal.width, is_quiet=is_quiet)
    for time in at:
        now.append(now[0] + time)
        line.show(f"at {time:g} s")
    return line


def test_on_a_terminal_each_line_takes_the_place_of_the_one_before(now: list[float]) -> None:
    terminal = Terminal()
    line = shown(terminal, now, 0.0, 0.01, 12.5, 13.0)
    assert terminal.written == "\rat 0 s" + "\rat 12.5 s" + "\rat 13 s  "  # the second came too soon
    line.clear()
    assert terminal.written.endswith("\r" + " " * 7 + "\r")
    before = terminal.written
    line.clear()
    assert terminal.written == before


def test_a_line_is_not_longer_than_the_terminal(now: list[float]) -> None:
    terminal = Terminal(5)
    shown(terminal, now, 12.5)
    assert terminal.written == "\rat 1"


def test_in_a_file_there_is_a_line_now_and_then(now: list[float]) -> None:
    terminal = Terminal(None)
    shown(terminal, now, 1.0, EVERY_SECONDS_IN_A_FILE, EVERY_SECONDS_IN_A_FILE + 1, 2 * EVERY_SECONDS_IN_A_FILE).clear()
    assert terminal.written == "at 30 s\nat 60 s\n"


def test_quiet_is_quiet(now: list[float]) -> None:
    terminal = Terminal()
    shown(terminal, now, 1.0, 2.0, is_quiet=True).clear()
    assert terminal.written == ""
