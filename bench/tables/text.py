"""What all tables share: a console that keeps plain text, tables that cut no cell, and how figures are written."""

import io
from collections.abc import Iterable, Iterator

from rich import box
from rich.console import Console
from rich.table import Table

WIDTH = 10_000  # tables take only what they need, and no cell is ever cut; a narrow terminal wraps
MARKS = {"faster": "+", "slower": "-", "same": "=", "undecided": "?"}  # of verdicts


def new_console() -> Console:
    """Return a console that keeps plain text, of any width."""
    return Console(file=io.StringIO(), width=WIDTH, highlight=False, markup=False, color_system=None, legacy_windows=False)


def text_of(console: Console) -> Iterator[str]:
    """Yield the lines that were printed on a console of `new_console`."""
    assert isinstance(console.file, io.StringIO)
    yield from (line.rstrip() for line in console.file.getvalue().splitlines())


def print_table(console: Console, title: str, table: Table) -> None:
    """Print a table under its title."""
    console.print(title)  # apart, because a table's own title wraps at the table's width
    console.print(table)


def new_table(headers: Iterable[str], left: int = 1) -> Table:
    """Return an empty table: the first `left` columns flush left, the others right, no cell ever cut."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, header in enumerate(headers):
        table.add_column(header, justify="left" if number < left else "right", no_wrap=True)
    return table


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
