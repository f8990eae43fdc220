"""Text of unknown origin: what of it is a name, and how a terminal shows the rest without obeying it."""

from typing import Annotated

from msgspec import Meta

Text = Annotated[str, Meta(max_length=300, pattern=r"^[\w./:=+,\[\] -]*\Z")]  # no markup, no control characters, one line


def printable(text: str, most: int = 200) -> str:
    """Return text of unknown origin as one short line that a terminal shows and does not obey."""
    plain = "".join(
        char if char.isprintable() else char.encode("unicode_escape", "replace").decode() for char in text[: most + 1]
    )
    return plain if len(plain) <= most else plain[: most - 3] + "..."
