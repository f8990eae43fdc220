"""One line that tells how far the measuring is: written over and over on a terminal, now and then into a file."""

import time
from typing import Any

EVERY_SECONDS, EVERY_SECONDS_IN_A_FILE = 0.2, 30.0


class Progress:
    """The last line of the terminal while cases are measured."""

    def __init__(self, terminal: Any, *, is_quiet: bool) -> None:
        """Write with pytest's terminal reporter; nothing where it is to be quiet."""
        self._terminal, self._is_quiet = terminal, is_quiet
        self._is_tty = bool(terminal.isatty)
        self._written, self._next = 0, 0.0 if self._is_tty else time.monotonic() + EVERY_SECONDS_IN_A_FILE

    def show(self, text: str) -> None:
        """Show a line in the place of the one before, unless that has only just been written."""
        now = time.monotonic()
        if self._is_quiet or now < self._next:
            return
        self._next = now + (EVERY_SECONDS if self._is_tty else EVERY_SECONDS_IN_A_FILE)
        if not self._is_tty:
            self._terminal.write_line(text)
            return
        text = text[: max(1, self._terminal._tw.fullwidth - 1)]  # noqa: SLF001  # a line that wraps is not written over
        self._terminal.write("\r" + text.ljust(self._written), flush=True)
        self._written = len(text)

    def clear(self) -> None:
        """Leave the line empty for what is written next."""
        if self._written:
            self._terminal.write("\r" + " " * self._written + "\r", flush=True)
            self._written = 0
