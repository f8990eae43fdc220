"""Cases over the saved runs of one machine: from which run on their speed-up over dense is another.

Without CASE, the steps of all cases. With CASE, each run of those that match: `*` stands for anything, and a pattern without
one for any name that holds it. A step at the newest run may be that run's own: a further run tells.
"""

import argparse
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import PurePosixPath
from typing import NamedTuple

from bench.findings.gate import regular
from bench.findings.history import RUNS_NEEDED, Series, Step, all_series, sparkline, stands, steps
from bench.machine.facts import facts as machine_facts
from bench.machine.fingerprint import fingerprint
from bench.runs import accepted
from bench.runs.accepted import Accepted, step_of
from bench.runs.locate import STORAGE, read_runs
from bench.runs.plain_text import printable
from bench.runs.saved import Run
from bench.tables.comparison import short
from bench.tables.text import new_console, new_table, print_table, ratio, seconds, text_of
from sparse_models.errors import InputError

HELP = "look back: cases over the runs of one machine"
HEADERS = ("case", "from this run on", "before", "after", "change", "")


class Found(NamedTuple):
    """A step of a series, why it is accepted if it is, and whether its level, or one as far away, is the newest."""

    series: Series
    step: Step
    reason: str
    stands: bool

    @property
    def run(self) -> Run:
        """The first run of the new level."""
        return self.series.points[self.step.at].run

    @property
    def status(self) -> str:
        """The step's verdict or, where it is accepted, why."""
        if self.reason:
            return f"accepted: {printable(self.reason)}"
        return self.step.verdict if self.stands else f"{self.step.verdict}, undone since"


def add_arguments(tool: argparse.ArgumentParser) -> None:
    """Add the tool's options."""
    tool.add_argument("cases", nargs="*", metavar="CASE", help="cases to show run by run; default: the steps of all")
    tool.add_argument("--storage", default=STORAGE, metavar="FOLDER", help=f"folder or URL of the runs; default: {STORAGE}")
    tool.add_argument("--machine", metavar="FOLDER", help="whose runs; default: the only one there is, or this one")
    then = tool.add_mutually_exclusive_group()
    accept = 'accept the steps of the cases at a run (number, name or commit) as they are, in the storage\'s "accepted.json"'
    then.add_argument("--accept", nargs=2, metavar=("RUN", "REASON"), help=accept)
    then.add_argument("--fail", action="store_true", help="exit with 1 where a step to slower stands and is not accepted")


def run(asked: argparse.Namespace, tell: Callable[[str], None]) -> int:
    """Print the history; 1 where it is to fail."""
    runs, skipped = read_runs([asked.storage], asked.storage)
    runs = of_machine(runs, asked.machine)
    known = {one.step: one.reason for one in accepted.read(asked.storage)}
    shown = _matching(all_series(runs), asked.cases)
    found = {number: list(_found(one, known)) for number, one in enumerate(shown)}
    every = [one for of_one in found.values() for one in of_one]
    if asked.accept:
        for line in _accept(asked, every, runs):
            tell(line)
        return 0
    tell(f"{runs[0].machine}: {len(runs)} run{'s' * (len(runs) != 1)}, {runs[0].time[:10]} to {runs[-1].time[:10]}")
    each = (line for number, one in enumerate(shown) for line in _of_case(one, found[number]))
    for line in each if asked.cases else _overview(shown, every):
        tell(line)
    for line in skipped:
        if not line.startswith(f"skipped {printable(str(accepted.path_of(asked.storage)))}:"):
            tell(line)
    failed = [one for one in every if asked.fail and one.status == "slower"]
    for one in failed:
        tell(f"{one.series.case}: slower from {one.run.label} on, {ratio(one.step.change)} of the speed-up before")
    return 1 if failed else 0


def _found(series: Series, known: Mapping[tuple[str, str, str, str], str]) -> Iterator[Found]:
    every = steps(series)
    for step in every:
        reason = known.get(step_of(series.case, series.points[step.at].run), "")
        yield Found(series, step, reason, stands(step, every))


def of_machine(runs: Sequence[Run], asked: str | None) -> list[Run]:
    """Return the runs of the one machine that is asked for or, where none is, of the only one or else of this one."""
    names = sorted({run.machine for run in runs})
    if asked is not None:
        whose, pattern = printable(asked), regular(PurePosixPath(asked).name)
        chosen = [name for name in names if re.fullmatch(pattern, name)]
    elif len(names) == 1:
        chosen = names
    else:
        whose = fingerprint(machine_facts(["cpu"]))
        chosen = [name for name in names if name == whose]
    if len(chosen) != 1:
        raise InputError(f"expected one machine with runs, got {whose}; choose by --machine among {', '.join(names)}")
    return sorted((run for run in runs if run.machine == chosen[0]), key=lambda run: (run.time, run.name))


def _matching(every: Sequence[Series], patterns: Sequence[str]) -> list[Series]:
    """Return the series whose name or short name matches one of the patterns, all if there are none."""
    compiled = [re.compile(regular(pattern if "*" in pattern else f"*{pattern}*")) for pattern in patterns]
    # For each series, which of the patterns it matches.
    met = [[any(map(one.fullmatch, (series.case, short(series.case)))) for one in compiled] for series in every]
    unmet = [pattern for number, pattern in enumerate(patterns) if not any(of_patterns[number] for of_patterns in met)]
    if unmet:
        names = sorted({short(series.case) for series in every})
        raise InputError(
            f"expected a part of a case's name, or all of it with `*` for anything, got {printable(unmet[0])!r}, "
            f"which none of {len(names)} matches; one is {names[0]}"
        )
    return [series for series, of_patterns in zip(every, met, strict=True) if any(of_patterns) or not patterns]


def _accept(asked: argparse.Namespace, every: Sequence[Found], runs: Sequence[Run]) -> Iterator[str]:
    """Accept the steps at a run and yield a line for each."""
    named, reason = asked.accept
    if not asked.cases:
        raise InputError("expected a case whose step to accept, got none; name some, '*' stands for all")
    if not reason.strip() or len(reason) > accepted.MOST:
        raise InputError(
            f"expected a reason of 1 to {accepted.MOST} characters, got {len(reason.strip())}; say it in a sentence"
        )
    meant = accepted.called(named, runs)
    here = [one for one in every if one.run in meant]
    if not here:
        where = ", ".join(dict.fromkeys(one.run.label for one in every)) or "no run"
        raise InputError(
            f"expected a run at which a case has a step, got {printable(named)!r}; these cases have steps at {where}"
        )
    today = datetime.now(timezone.utc).date().isoformat()
    path = accepted.add(asked.storage, (Accepted(*step_of(one.series.case, one.run), reason.strip(), today) for one in here))
    for one in here:
        yield f"accepted: {one.series.case}, {one.step.verdict} from {one.run.label} on"
    yield f"saved {printable(str(path))}"


def _overview(every: Sequence[Series], found: Sequence[Found]) -> Iterator[str]:
    """Yield the lines of all steps, newest first, and how many cases have none."""
    console = new_console()
    if found:
        table = new_table(HEADERS, left=2)
        for one in sorted(found, key=lambda one: one.run.time, reverse=True):
            levels = (ratio(each) for each in (one.step.before, one.step.after, one.step.change))
            table.add_row(short(one.series.case), one.run.label, *levels, one.status)
        title = (
            "Steps of the speed-up over dense: its level before and after, and the change, below 1 is slower [95 % interval]"
        )
        print_table(console, title, table)
    cases = {series.case for series in every}
    known = {series.case for series in every if len(series.points) >= RUNS_NEEDED}
    calm = known - {one.series.case for one in found}
    console.print(
        f"{len(calm)} cases without a step, {len(cases - known)} with fewer than the {RUNS_NEEDED} runs that a step takes"
    )
    anew = Counter((series.points[0].run.label, series.note) for series in every if series.note)
    for (label, note), count in anew.items():
        console.print(f"{count} cases with another definition from {label} on, series of their own: {note}")
    yield from text_of(console)


def _of_case(series: Series, found: Sequence[Found]) -> Iterator[str]:
    """Yield the lines of a case, run by run."""
    console = new_console()
    console.print(f"\n{short(series.case)}" + (f", changed definition: {series.note}" if series.note else ""))
    line = sparkline([point.speedup.median for point in series.points])
    if _can_be_written(line):
        console.print(line)
    marks = {one.step.at: f"{one.status}, {ratio(one.step.change)}" for one in found}
    table = new_table(("run", "commit", "date", "speed-up", "dense", "step"), left=3)
    table.columns[-1].justify = "left"
    for number, (at, measured, speedup) in enumerate(series.points):
        changed = " with changes" if at.is_dirty else ""
        cells = (PurePosixPath(at.name).name, f"{at.commit[:9]}{changed}", at.time[:16].replace("T", " "))
        table.add_row(*cells, ratio(speedup), seconds(measured.row.dense_seconds), marks.get(number, ""))
    console.print(table)
    yield from text_of(console)


def _can_be_written(text: str) -> bool:
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True
