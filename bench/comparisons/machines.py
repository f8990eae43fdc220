"""Any number of runs in, side by side out: what each machine says of a case, and where they agree.

A speed-up belongs to a machine. Across machines no time is held against another's; what is set side by side is what each
measured against its own dense and its own bound, and machines agree where they answer alike whether sparsity pays.
"""

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from bench.findings.break_even import break_evens
from bench.findings.grouping import Told
from bench.runs.saved import Measured, Run, interval
from bench.statistics.intervals import Interval

CASE = (
    *("op", "layer", "model", "update", "shape", "batch", "sparsity", "device", "dtype"),
    *("data", "protocol", "regime", "skew", "distribution", "zeros"),
)


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
    by_threads = has_several_threads(columns)
    for side in columns:
        for case in side.run.cases.values():
            key = (*(getattr(case.row, field) for field in CASE), case.row.threads if by_threads else 0)
            found.setdefault(key, {})[side.letter] = case
    return found


def has_several_threads(columns: Sequence[Side]) -> bool:
    """Tell whether a run measured its cases on several numbers of threads, which then tell cases apart."""
    return any(len({case.row.threads for case in side.run.cases.values()}) > 1 for side in columns)


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


class Cell(NamedTuple):
    """What a machine says of a case: its speed-up over its own dense, and what part of its own bound it reaches."""

    told: Told
    bound_fraction: float | None


class Line(NamedTuple):
    """A case beside itself on several machines: `what` tells it from the others, `cells` are by letter."""

    what: tuple[str, ...]
    cells: dict[str, Cell]
    answer: str

    @property
    def ordered(self) -> list[str]:
        """The letters of the columns from the lowest speed-up to the highest."""
        return sorted(self.cells, key=lambda letter: self.cells[letter].told.speedup.median)

    @property
    def median(self) -> float:
        """The median speed-up of the machines."""
        return statistics.median(cell.told.speedup.median for cell in self.cells.values())


class BreakEvens(NamedTuple):
    """The break-even sparsity of a layer's operation by machine, in words; they differ where two intervals are apart."""

    what: tuple[str, ...]  # operation, layer, shape, batch
    cells: dict[str, str]
    differ: bool


class Machines(NamedTuple):
    """Runs side by side: the columns, what the lines' `what` says, the cases that more than one has, and break-evens."""

    columns: list[Side]
    fields: list[str]
    lines: list[Line]
    known: int  # cases that any has
    answers: dict[str, int]
    break_evens: list[BreakEvens]


def machines_of(runs: Sequence[Run]) -> Machines:
    """Return what the newest run of each machine says, or every run where all are of one."""
    columns = sides(runs)
    known = cases(columns)
    common = {key: cells for key, cells in sorted(known.items(), key=lambda item: tuple(map(str, item[0]))) if len(cells) > 1}
    names, by_letter = [*CASE, "threads"], {side.letter: side.run for side in columns}
    # The fields that tell the cases apart, and always the first two.
    places = [at for at, name in enumerate(names) if name in ("op", "layer") or len({key[at] for key in common}) > 1]
    lines = [
        Line(
            tuple(str(key[place]) for place in places),
            {letter: _cell(case, by_letter[letter]) for letter, case in cells.items()},
            answer_of(list(cells.values())),
        )
        for key, cells in common.items()
    ]
    counts = Counter(line.answer.partition(":")[0] for line in lines)
    return Machines(columns, [names[place] for place in places], lines, len(known), dict(counts), _break_evens(columns))


def _cell(case: Measured, run: Run) -> Cell:
    return Cell(Told(interval(case), case.row.verdict), bound_fraction(case, run))


def _break_evens(columns: Sequence[Side]) -> list[BreakEvens]:
    curves: dict[tuple[str, ...], dict[str, dict[str, Any]]] = {}
    told_apart = ["threads"] if has_several_threads(columns) else []
    fields = ("op", "layer", "shape", "batch", "device", "dtype", "regime", "skew", "zeros", *told_apart)
    for side in columns:
        for record in break_evens([msgspec.structs.asdict(case.row) for case in side.run.cases.values()]):
            key = tuple(str(record[field]) for field in fields)
            curves.setdefault(key, {})[side.letter] = record
    found = []
    for key, cells in curves.items():
        if len(cells) > 1:
            bounds = [Interval(*(cell[f"sparsity{end}"] for end in ("", "_low", "_high"))) for cell in cells.values()]
            apart = max(bound.low for bound in bounds) > min(bound.high for bound in bounds)
            found.append(BreakEvens(key[:4], {letter: cell["told"] for letter, cell in cells.items()}, apart))
    return found
