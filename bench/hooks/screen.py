"""What a session writes to, and where it runs, as tables take it."""

import shutil
from typing import Any

import pytest

from bench.hooks.state import MACHINE
from bench.machine.fingerprint import hardware
from bench.tables.text import WIDTH, Screen, wrapped


def screen_of(terminalreporter: Any) -> Screen:
    """Return the screen that pytest writes to, with the colours that pytest was told to use."""
    width = shutil.get_terminal_size((WIDTH, 24)).columns if terminalreporter.isatty else WIDTH
    return Screen(width, terminalreporter.hasmarkup)


def fitted(terminalreporter: Any, text: str) -> list[str]:
    """Return a sentence as lines that a terminal has room for, or as one line for a file, where others look for it."""
    return wrapped(text, screen_of(terminalreporter).width) if terminalreporter.isatty else [text]


def machine_of(config: pytest.Config) -> str:
    """Return the machine in a word: its processor, its cores and its GPU."""
    facts: dict[str, Any] = config.stash.get(MACHINE, {})
    return hardware(facts).rpartition("-")[0]
