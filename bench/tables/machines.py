"""Runs side by side in, tables for a terminal out: each machine in a column, or the lowest and the highest of many."""

from collections.abc import Iterator, Sequence

from rich.text import Text

from bench.comparisons.machines import BreakEvens, Cell, Machines, Side
from bench.tables.grid import Grid, print_table
from bench.tables.text import MARKS, Screen, marked, new_console, print_text, text_of

SIDE_BY_SIDE = 6  # columns; of more, the lowest and the highest are told
ANSWERS = ("agree", "differ", "undecided")


def lines(found: Machines, screen: Screen | None = None) -> Iterator[str]:
    """Yield the lines of all tables, with how to read them."""
    console = new_console(screen)
    are_beside = len(found.columns) <= SIDE_BY_SIDE
    shown = found.columns if are_beside else _ends(found)
    for side in shown:
        left_out = f"; {side.others} older of this machine left out, see history" if side.others else ""
        print_text(console, f"{side.letter}: {side.run.machine}, {side.run.label}{left_out}")
    if len(shown) < len(found.columns):
        print_text(console, f"and {len(found.columns) - len(shown)} that are nowhere the lowest or the highest")
    print_text(
        console,
        f"\n{len(found.lines)} of {found.known} cases are in more than one. Speed-up over each one's own dense "
        f"[95 % interval], verdict ({', '.join(f'{mark} {verdict}' for verdict, mark in MARKS.items())}), and the part of the "
        "measured bound",
    )
    if found.lines:
        print_table(console, "", _side_by_side(found) if are_beside else _extremes(found))
        print_text(console, ", ".join(f"{found.answers.get(answer, 0)} {answer}" for answer in ANSWERS) + "\n")
    if found.lines and are_beside:
        print_table(console, "Break-even sparsity by machine [95 % interval]", _break_evens(found.columns, found.break_evens))
    yield from text_of(console)


def _ends(found: Machines) -> list[Side]:
    ends = {letter for line in found.lines for letter in (line.ordered[0], line.ordered[-1])}
    return [side for side in found.columns if side.letter in ends]


def _side_by_side(found: Machines) -> Grid:
    table = Grid([*found.fields, *(side.letter for side in found.columns), "machines"], keys=len(found.fields))
    for line in found.lines:
        cells = [_cell(line.cells[side.letter]) if side.letter in line.cells else "" for side in found.columns]
        table.add_row(*line.what, *cells, line.answer)
    return table


def _extremes(found: Machines) -> Grid:
    table = Grid([*found.fields, "runs", "lowest", "median", "highest", "machines"], keys=len(found.fields))
    for line in found.lines:
        low, high = (Text.assemble(f"{letter} ", _cell(line.cells[letter])) for letter in (line.ordered[0], line.ordered[-1]))
        table.add_row(*line.what, str(len(line.cells)), low, f"{line.median:.2f}", high, line.answer)
    return table


def _cell(cell: Cell) -> Text:
    return Text.assemble(marked(cell.told), "" if cell.bound_fraction is None else f" {cell.bound_fraction:4.0%}")


def _break_evens(columns: Sequence[Side], found: Sequence[BreakEvens]) -> Grid:
    table = Grid(["operation", "layer", "shape", "batch", *(side.letter for side in columns), "machines"], keys=4)
    for one in found:
        cells = [one.cells.get(side.letter, "") for side in columns]
        table.add_row(*one.what, *cells, "differ" if one.differ else "overlap")
    return table
