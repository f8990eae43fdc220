"""Cells in, a table that fits the screen out: split by columns where it is too wide, and turned where its keys alone are."""

from collections.abc import Iterable, Iterator, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.tables.text import print_text

Cell = str | Text
BETWEEN, EDGES = 3, 2  # columns that the rules take between two cells, and around all


class Grid:
    """A table to be printed: its headers, how many of them name a row, and its rows."""

    def __init__(self, headers: Iterable[str], keys: int = 1) -> None:
        """Take the headers; the first `keys` columns name a row, and are repeated wherever it is split."""
        self.headers, self.keys = tuple(headers), keys
        self.rows: list[tuple[Cell, ...]] = []

    def add_row(self, *cells: Cell) -> None:
        """Add a row, one cell for each header."""
        assert len(cells) == len(self.headers), f"expected {len(self.headers)} cells, got {len(cells)}"
        self.rows.append(cells)


def print_table(console: Console, title: str, grid: Grid) -> None:
    """Print a table under its title, no cell ever cut or wrapped; the title alone where there is no row."""
    if title:
        print_text(console, title)  # apart, because a table's own title wraps at the table's width
    if not grid.rows:
        print_text(console, "")
        return
    widths = [max(map(_width, column)) for column in zip(grid.headers, *grid.rows, strict=True)]
    keys, others = EDGES + _taken(widths[: grid.keys]) - BETWEEN, widths[grid.keys :]
    is_hopeless = keys + _taken([max(others)]) > console.width
    if is_hopeless or (keys > console.width / 2 and keys + _taken(others) > console.width):
        _print_turned(console, grid)
        return
    for columns in _parts(grid, widths, console.width - keys):
        console.print(_table(grid, columns))


def _width(cell: Cell) -> int:
    return cell.cell_len if isinstance(cell, Text) else cell_len(cell)


def _taken(widths: Sequence[int]) -> int:
    return sum(BETWEEN + width for width in widths)


def _parts(grid: Grid, widths: Sequence[int], free: int) -> Iterator[list[int]]:
    """Yield the columns of one table after another, each as wide as fits; what nobody filled is left out."""
    part: list[int] = []
    columns = range(grid.keys, len(grid.headers))
    for column in [one for one in columns if any(map(_width, (row[one] for row in grid.rows)))] or columns:
        if part and _taken([widths[one] for one in (*part, column)]) > free:
            yield part
            part = []
        part.append(column)
    yield part


def _table(grid: Grid, columns: Sequence[int]) -> Table:
    """Return a table of the keys and some other columns, with the rows that have a cell there."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    shown = (*range(grid.keys), *columns)
    for column in shown:
        table.add_column(grid.headers[column], justify="left" if column < grid.keys else "right", no_wrap=True)
    for row in grid.rows:
        if any(_width(row[column]) for column in columns):
            table.add_row(*(row[column] for column in shown))
    return table


def _print_turned(console: Console, grid: Grid) -> None:
    """Print each row by itself: its keys in a line, and below them what each column says, no cell apart from its header."""
    console.print()
    for row in grid.rows:
        print_text(console, " ".join(str(cell) for cell in row[: grid.keys]))
        line = Text("  ")
        for header, cell in zip(grid.headers[grid.keys :], row[grid.keys :], strict=True):
            if not _width(cell):
                continue
            told = Text.assemble(f"{header} " if header else "", cell)
            if line.cell_len > len("  ") and line.cell_len + len(", ") + told.cell_len > console.width:
                console.print(line, soft_wrap=True)
                line = Text("  ")
            line = Text.assemble(line, ", " if line.cell_len > len("  ") else "", told)
        console.print(line, soft_wrap=True)
    console.print()
