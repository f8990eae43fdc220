"""One line that tells how far the measuring is: written over and over on a terminal, now and then into a file."""

import time
from collections.abc import Callable

EVERY_SECONDS, EVERY_SECONDS_IN_A_FILE = 0.2, 30.0


class Progress:
    """The last line of the screen while cases are measured."""

    def __init__(self, write: Callable[[str], None], width: int | None, *, is_quiet: bool = False) -> None:
        """Write over one line of a terminal so wide, or lines where it is none; nothing where it is to be quiet."""
        self._write, self._width, self._is_quiet = write, width, is_quiet
        self._written, self._next = 0, 0.0 if width else time.monotonic() + EVERY_SECONDS_IN_A_FILE

    def show(self, text: str) -> None:
        """Show a line in the place of the one before, unless that has only just been written."""
        now = time.monotonic()
        if self._is_quiet or now < self._next:
            return
        self._next = now + (EVERY_SECONDS if self._width else EVERY_SECONDS_IN_A_FILE)
        if not self._width:
            self._write(f"{text}\n")
            return
        text = text[: max(1, self._width - 1)]  # a line that wraps is not written over
        self._write("\r" + text.ljust(self._written))
        self._written = len(text)

    def clear(self) -> None:
        """Leave the line empty for what is written next."""
        if self._written:
            self._write("\r" + " " * self._written + "\r")
            self._written = 0
