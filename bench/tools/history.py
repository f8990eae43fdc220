"""Cases over the saved runs of one machine: from which run on their speed-up over dense is another.

Without CASE, the steps of all cases. With CASE, each run of those that match: `*` stands for anything, and a pattern without
one for any name that holds it. A step at the newest run may be that run's own: a further run tells.
"""

import argparse
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import PurePosixPath

from bench.comparisons.gate import regular
from bench.comparisons.history import Found, Series, all_series, found_in, overview_of
from bench.machine.facts import facts as machine_facts
from bench.machine.fingerprint import fingerprint
from bench.runs import accepted
from bench.runs.accepted import Accepted, step_of
from bench.runs.locate import STORAGE, read_runs
from bench.runs.plain_text import printable
from bench.runs.saved import Run
from bench.tables.comparison import short
from bench.tables.history import of_case, overview
from sparse_models.errors import InputError

HELP = "look back: cases over the runs of one machine"


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
    found = {number: list(found_in(one, known)) for number, one in enumerate(shown)}
    every = [one for of_one in found.values() for one in of_one]
    if asked.accept:
        for line in _accept(asked, every, runs):
            tell(line)
        return 0
    tell(f"{runs[0].machine}: {len(runs)} run{'s' * (len(runs) != 1)}, {runs[0].time[:10]} to {runs[-1].time[:10]}")
    each = (line for number, one in enumerate(shown) for line in of_case(one, found[number]))
    for line in each if asked.cases else overview(overview_of(shown, every)):
        tell(line)
    for line in skipped:
        if not line.startswith(f"skipped {printable(str(accepted.path_of(asked.storage)))}:"):
            tell(line)
    failed = [one for one in every if asked.fail and one.status == "slower"]
    for one in failed:
        tell(f"{one.series.case}: slower from {one.run.label} on, {one.step.change} of the speed-up before")
    return 1 if failed else 0


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
