"""Any number of runs in, side by side out: what each machine says of a case, and where they agree.

A speed-up belongs to a machine. Across machines no time is held against another's; what is set side by side is what each
measured against its own dense and its own bound, and machines agree where they answer alike whether sparsity pays.
"""

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from bench.findings.break_even import break_evens
from bench.runs.saved import Measured, Run, interval
from bench.statistics.intervals import Interval
from bench.tables.answer import MARKS
from bench.tables.text import new_console, new_table, print_table, ratio, text_of

CASE = ("op", "layer", "model", "update", "shape", "batch", "sparsity", "device", "dtype", "data", "protocol", "regime", "skew")
SIDE_BY_SIDE = 6  # columns; of more, the lowest and the highest are told
ANSWERS = ("agree", "differ", "undecided")


class Side(NamedTuple):
    """One column: a run under a letter."""

    letter: str
    run: Run
    others: int  # older runs of the same machine that were left out


def sides(runs: Sequence[Run]) -> list[Side]:
    """Return the columns: the newest run of each machine or, where all are of one machine, every run, oldest first."""
    by_machine: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run.time, run.name)):
        by_machine.setdefault(run.machine, []).append(run)
    if len(by_machine) == 1:
        [of_one] = by_machine.values()
        return [Side(_letter(number), run, 0) for number, run in enumerate(of_one)]
    newest = [(of_one[-1], len(of_one) - 1) for _, of_one in sorted(by_machine.items())]
    return [Side(_letter(number), run, others) for number, (run, others) in enumerate(newest)]


def _letter(number: int) -> str:
    return chr(ord("A") + number % 26) + (str(number // 26) if number >= 26 else "")


def cases(columns: Sequence[Side]) -> dict[tuple[Any, ...], dict[str, Measured]]:
    """Return by case what each column says of it; cases that do the same work on as many threads as the machine was asked for.

    The number of threads tells cases apart only where a run has several of them.
    """
    found: dict[tuple[Any, ...], dict[str, Measured]] = {}
    by_threads = any(len({case.row.threads for case in side.run.cases.values()}) > 1 for side in columns)
    for side in columns:
        for case in side.run.cases.values():
            key = (*(getattr(case.row, field) for field in CASE), case.row.threads if by_threads else 0)
            found.setdefault(key, {})[side.letter] = case
    return found


def answer_of(measured: Sequence[Measured]) -> str:
    """Return whether several machines answer alike: all faster, all slower or all same as dense."""
    verdicts = {case.row.verdict for case in measured}
    if len(verdicts - {"undecided"}) > 1:
        return "differ"
    return "undecided" if "undecided" in verdicts else f"agree: {verdicts.pop()}"


def bound_fraction(case: Measured, run: Run) -> float | None:
    """Return what part the case reaches of its kernel's measured bound or, where none was measured, of the dense products'."""
    if case.row.bound_fraction is not None:
        return case.row.bound_fraction
    dense = run.dense_gflops.get(case.row.device)
    return case.row.gflops / dense if dense else None


def machines_table(runs: Sequence[Run]) -> Iterator[str]:
    """Yield the lines of all tables, with how to read them."""
    columns = sides(runs)
    console = new_console()
    known = cases(columns)
    common = {key: cells for key, cells in known.items() if len(cells) > 1}
    are_beside = len(columns) <= SIDE_BY_SIDE
    shown = columns if are_beside else _ends(common, columns)
    for side in shown:
        left_out = f"; {side.others} older of this machine left out, see history" if side.others else ""
        console.print(f"{side.letter}: {side.run.machine}, {side.run.label}{left_out}")
    if len(shown) < len(columns):
        console.print(f"and {len(columns) - len(shown)} that are nowhere the lowest or the highest")
    console.print(
        f"\n{len(common)} of {len(known)} cases are in more than one. Speed-up over each one's own dense [95 % interval], "
        f"verdict ({', '.join(f'{mark} {verdict}' for verdict, mark in MARKS.items())}), and the part of the measured bound"
    )
    if common:
        console.print(_side_by_side(common, columns) if are_beside else _extremes(common, columns))
        counts = Counter(answer_of(list(cells.values())).partition(":")[0] for cells in common.values())
        console.print(", ".join(f"{counts[answer]} {answer}" for answer in ANSWERS) + "\n")
    if common and are_beside:
        print_table(console, "Break-even sparsity by machine [95 % interval]", _break_evens(columns))
    yield from text_of(console)


def _ordered(cells: dict[str, Measured]) -> list[str]:
    """Return the letters of the columns from the lowest speed-up to the highest."""
    return sorted(cells, key=lambda letter: cells[letter].row.speedup)


def _ends(common: dict[tuple[Any, ...], dict[str, Measured]], columns: Sequence[Side]) -> list[Side]:
    ends = {letter for cells in common.values() for letter in (_ordered(cells)[0], _ordered(cells)[-1])}
    return [side for side in columns if side.letter in ends]


def _headers(common: dict[tuple[Any, ...], dict[str, Measured]]) -> tuple[list[str], list[int]]:
    """Return the fields that tell the cases apart, and their places in the key."""
    names = [*CASE, "threads"]
    places = [
        place for place in range(len(names)) if names[place] in ("op", "layer") or len({key[place] for key in common}) > 1
    ]
    return [names[place] for place in places], places


def _side_by_side(common: dict[tuple[Any, ...], dict[str, Measured]], columns: Sequence[Side]) -> Any:
    headers, places = _headers(common)
    table = new_table([*headers, *(side.letter for side in columns), "machines"], left=len(headers))
    for key, cells in sorted(common.items(), key=lambda item: tuple(map(str, item[0]))):
        told = [_cell(cells.get(side.letter), side.run) for side in columns]
        table.add_row(*(str(key[place]) for place in places), *told, answer_of(list(cells.values())))
    return table


def _extremes(common: dict[tuple[Any, ...], dict[str, Measured]], columns: Sequence[Side]) -> Any:
    headers, places = _headers(common)
    table = new_table([*headers, "runs", "lowest", "median", "highest", "machines"], left=len(headers))
    runs = {side.letter: side.run for side in columns}
    for key, cells in sorted(common.items(), key=lambda item: tuple(map(str, item[0]))):
        ordered = _ordered(cells)
        ends = [f"{letter} {_cell(cells[letter], runs[letter])}" for letter in (ordered[0], ordered[-1])]
        middle = statistics.median(case.row.speedup for case in cells.values())
        told = [str(len(cells)), ends[0], f"{middle:.2f}", ends[1], answer_of(list(cells.values()))]
        table.add_row(*(str(key[place]) for place in places), *told)
    return table


def _cell(case: Measured | None, run: Run) -> str:
    if case is None:
        return ""
    fraction = bound_fraction(case, run)
    return f"{ratio(interval(case))} {MARKS[case.row.verdict]}" + (f" {fraction:4.0%}" if fraction is not None else "")


def _break_evens(columns: Sequence[Side]) -> Any:
    """Return the table of break-even sparsities; machines differ where the intervals of two have nothing in common."""
    curves: dict[tuple[str, ...], dict[str, dict[str, Any]]] = {}
    for side in columns:
        for record in break_evens([msgspec.structs.asdict(case.row) for case in side.run.cases.values()]):
            key = tuple(str(record[field]) for field in ("op", "layer", "shape", "batch", "device", "dtype", "regime"))
            curves.setdefault(key, {})[side.letter] = record
    table = new_table(["operation", "layer", "shape", "batch", *(side.letter for side in columns), "machines"], left=4)
    for key, cells in curves.items():
        if len(cells) > 1:
            bounds = [Interval(*(cell[f"sparsity{end}"] for end in ("", "_low", "_high"))) for cell in cells.values()]
            apart = max(bound.low for bound in bounds) > min(bound.high for bound in bounds)
            told = [cells[side.letter]["told"] if side.letter in cells else "" for side in columns]
            table.add_row(*key[:4], *told, "differ" if apart else "overlap")
    return table
