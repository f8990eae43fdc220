"""A calibration in, the table of what this machine can resolve out."""

import statistics
from collections.abc import Iterator, Sequence

from scipy import special

from bench.findings.calibration import Calibration, Comparison
from bench.statistics.intervals import CONFIDENCE
from bench.tables.text import new_console, new_table, text_of

ALARM = ("faster", "slower")


def rate(hits: int, of: int) -> str:
    """Return hits of a number as a rate with its 95 % interval (Clopper and Pearson 1934), in percent."""
    tail = (1 - CONFIDENCE) / 2
    low = float(special.betaincinv(hits, of - hits + 1, tail)) if hits else 0.0
    high = float(special.betaincinv(hits + 1, of - hits, 1 - tail)) if hits < of else 1.0
    return f"{hits} of {of} = {hits / of:.1%} [{low:.1%} {high:.1%}]"


def covers(one: Comparison) -> bool:
    """Tell whether the interval holds the true ratio."""
    return one.interval.low <= one.truth <= one.interval.high


def lines(calibration: Calibration, overhead: float) -> Iterator[str]:
    """Yield the lines that tell what was found, and at what cost."""
    console = new_console()
    console.print(
        "Works against their own clones, with extra calls planted: what was called, and how often intervals are right"
    )
    table = new_table(
        ["planted", "called slower", "called faster", "slower, alone among identical", "interval holds the truth", "half-width"]
    )
    for planted in sorted({one.planted for one in calibration.comparisons}):
        group = [one for one in calibration.comparisons if one.planted == planted]
        table.add_row(f"{planted} %", *_cells(group))
    if calibration.comparisons:
        console.print(table)
        console.print(_sentences(calibration, overhead))
    else:
        console.print("no run is complete: ask for more time with --budget")
    yield from text_of(console)


def _cells(group: Sequence[Comparison]) -> list[str]:
    def counted(hits: Iterator[bool]) -> str:
        return rate(sum(hits), len(group))

    return [
        counted(one.verdict == "slower" for one in group),
        counted(one.verdict == "faster" for one in group),
        counted(one.verdict_alone == "slower" for one in group),
        counted(covers(one) for one in group),
        f"{statistics.median(one.interval.half_width for one in group):.1%}",
    ]


def _sentences(calibration: Calibration, overhead: float) -> str:
    comparisons = calibration.comparisons
    alarms = [one for one in comparisons if one.planted == 0 and one.verdict in ALARM]
    identical = [one for one in comparisons if one.planted == 0]
    floor = sorted(max(one.interval.high, 1 / one.interval.low) - 1 for one in identical)
    spent = calibration.spent
    works = spent.timed + spent.warming
    return (
        f"\nFalse alarms on identical code: {rate(len(alarms), len(identical))}."
        f"\nThe interval holds the truth: {rate(sum(map(covers, comparisons)), len(comparisons))} of all comparisons."
        f"\nNoise floor: half of the intervals of identical code lie within {floor[len(floor) // 2]:.1%} of 1, "
        f"nine tenths within {floor[len(floor) * 9 // 10]:.1%}."
        f"\nCost: {calibration.seconds / calibration.cases:.1f} s a case. Time: {spent}."
        f"\nThe engine's own part, starting processes and bookkeeping: {(spent.starting + spent.bookkeeping) / works:.1%} of "
        f"the time in which works ran; its loop and clock add {overhead * 1e9:.0f} ns to a call."
    )
