"""What all tables share: the screen they are to fit, the console that keeps their lines, and how figures are written."""

import io
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator
from typing import NamedTuple

from rich.console import Console
from rich.text import Text

from bench.findings.grouping import Told

WIDTH = 100  # columns, where no terminal tells its own
READABLE = 60  # columns: in fewer no table of figures can be read, so that a narrower terminal wraps
MARKS = {"faster": "+", "slower": "-", "same": "=", "undecided": "?"}  # of verdicts
COLOURS = {"faster": "green", "slower": "red", "same": "dim", "undecided": "yellow"}


class Screen(NamedTuple):
    """What is printed on: its width in columns, and whether it shows colours."""

    width: int = WIDTH
    is_coloured: bool = False


def screen_of_output() -> Screen:
    """Return what standard output is: a terminal of some width, with colours unless NO_COLOR is set; a plain file otherwise."""
    if not (hasattr(sys.stdout, "isatty") and sys.stdout.isatty()):
        return Screen()
    return Screen(shutil.get_terminal_size((WIDTH, 24)).columns, not os.environ.get("NO_COLOR"))


def new_console(screen: Screen | None = None) -> Console:
    """Return a console that keeps what is printed on it, for a screen; by default that of standard output."""
    width, is_coloured = screen or screen_of_output()
    return Console(
        file=io.StringIO(),
        width=max(width, READABLE),
        highlight=False,
        markup=False,
        force_terminal=is_coloured,
        color_system="standard" if is_coloured else None,
        no_color=not is_coloured,
        legacy_windows=False,
    )


def text_of(console: Console) -> Iterator[str]:
    """Yield the lines that were printed on a console of `new_console`, never two empty ones in a row."""
    assert isinstance(console.file, io.StringIO)
    before = "nothing"
    for line in map(str.rstrip, console.file.getvalue().splitlines()):
        if line or before:
            yield line
        before = line


def print_text(console: Console, text: str) -> None:
    """Print lines of text, broken between words where they are longer than the console is wide; no word is cut."""
    for line in text.split("\n"):
        console.print("\n".join(wrapped(line, console.width)) or "", soft_wrap=True)


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """Return the lines of a text, all but the first indented; a figure stays beside its interval."""
    bound = "".join("\0" if character == " " and inside else character for character, inside in _brackets(text))
    lines = textwrap.wrap(bound, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return [line.replace("\0", " ") for line in lines]


def _brackets(text: str) -> Iterator[tuple[str, bool]]:
    """Yield each character, and whether it is within square brackets or is the blank before them."""
    depth = 0
    for number, character in enumerate(text):
        depth += (character == "[") - (character == "]")
        yield character, depth > 0 or text[number + 1 : number + 2] == "["


def coloured(text: str, verdict: str) -> Text:
    """Return a text in the colour of a verdict."""
    return Text(text, style=COLOURS.get(verdict, ""))


def marked(told: Told) -> Text:
    """Return a speed-up with its verdict's mark, in its colour."""
    return coloured(f"{told.speedup} {MARKS[told.verdict]}", told.verdict)


def size(value: float) -> str:
    """Return a number of bytes in the unit that suits it."""
    for factor, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:.0f} B"


def seconds(value: float) -> str:
    """Return a duration in the unit that suits it."""
    for limit, factor, unit in ((1e-3, 1e6, "us"), (1, 1e3, "ms")):
        if value < limit:
            return f"{value * factor:.3g} {unit}"
    return f"{value:.3g} s"
