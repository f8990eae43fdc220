"""Cases over the runs of one machine in, their steps or a case run by run out, for a terminal."""

import math
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from bench.comparisons.change_points import RUNS_NEEDED
from bench.comparisons.history import Found, Overview, Series
from bench.statistics.verdicts import MARGIN
from bench.tables.comparison import short
from bench.tables.grid import Grid, print_table
from bench.tables.text import Screen, new_console, print_text, seconds, text_of

HEADERS = ("case", "from this run on", "before", "after", "change", "")
BLOCKS = "▁▂▃▄▅▆▇█"


def overview(of_all: Overview, screen: Screen | None = None) -> Iterator[str]:
    """Yield the lines of all steps, newest first, and how many cases have none."""
    console = new_console(screen)
    if of_all.found:
        table = Grid(HEADERS)
        for one in of_all.found:
            levels = (str(each) for each in (one.step.before, one.step.after, one.step.change))
            table.add_row(short(one.series.case), one.run.label, *levels, one.status)
        title = (
            "Steps of the speed-up over dense: its level before and after, and the change, below 1 is slower [95 % interval]"
        )
        print_table(console, title, table)
    print_text(
        console,
        f"{of_all.calm} cases without a step, {of_all.too_few} with fewer than the {RUNS_NEEDED} runs that a step takes",
    )
    for (label, note), count in of_all.anew.items():
        print_text(console, f"{count} cases with another definition from {label} on, series of their own: {note}")
    yield from text_of(console)


def of_case(series: Series, found: Sequence[Found], screen: Screen | None = None) -> Iterator[str]:
    """Yield the lines of a case, run by run."""
    console = new_console(screen)
    print_text(console, f"\n{short(series.case)}" + (f", changed definition: {series.note}" if series.note else ""))
    line = sparkline([point.speedup.median for point in series.points])
    if _can_be_written(line):
        print_text(console, line)
    marks = {one.step.at: f"{one.status}, {one.step.change}" for one in found}
    table = Grid(("run", "commit", "date", "speed-up", "dense", "step"), keys=3)
    for number, (at, measured, speedup) in enumerate(series.points):
        changed = " with changes" if at.is_dirty else ""
        cells = (PurePosixPath(at.name).name, f"{at.commit[:9]}{changed}", at.time[:16].replace("T", " "))
        table.add_row(*cells, str(speedup), seconds(measured.row.dense_seconds), marks.get(number, ""))
    print_table(console, "", table)
    yield from text_of(console)


def _can_be_written(text: str) -> bool:
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def sparkline(speedups: Sequence[float], most: int = 100) -> str:
    """Return a series as one line of blocks, on a logarithmic scale; of many, each block is the median of neighbours."""
    each = math.ceil(len(speedups) / most)
    logs = [math.log(statistics.median(speedups[start : start + each])) for start in range(0, len(speedups), each)]
    low, reach = min(logs), max(max(logs) - min(logs), math.log1p(MARGIN))  # what is no news is flat
    return "".join(BLOCKS[min(len(BLOCKS) - 1, int((value - low) / reach * len(BLOCKS)))] for value in logs)
