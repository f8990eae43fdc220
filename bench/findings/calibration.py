"""What the processes said of works against their clones in, what was called what out, beside what was planted."""

import statistics
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from bench.engine.calibration import PLANTED
from bench.engine.jobs import Job, Spent
from bench.runs.outcome import Outcome
from bench.statistics.intervals import Interval
from bench.statistics.proportions import Rate, rate
from bench.statistics.verdicts import process_interval, verdicts

ALARM = ("faster", "slower")


class Comparison(NamedTuple):
    """One work against its clone: what was planted, what the processes said, and what became of it."""

    run: int
    work: str
    planted: int
    speedups: list[float]
    interval: Interval
    verdict: str  # among all comparisons of its run
    verdict_alone: str  # as the only one of its run that differs, among the identical ones

    @property
    def truth(self) -> float:
        """The true ratio."""
        return float(1 / (1 + Fraction(self.planted, 100)))

    @property
    def is_covered(self) -> bool:
        """Whether the interval holds the true ratio."""
        return self.interval.low <= self.truth <= self.interval.high


class Calibration(NamedTuple):
    """All comparisons, and what they cost."""

    comparisons: list[Comparison]
    seconds: float
    cases: int  # measured, each over all processes of its run
    spent: Spent
    failure: str | None = None  # why it ended early, if a comparison could not be measured


def judge(run: int, outcomes: dict[Job, Outcome]) -> list[Comparison]:
    """Return the comparisons of one run with their verdicts, among all of them and each among the identical ones alone."""
    samples = {job.name: outcome.speedups for job, outcome in outcomes.items()}
    identical = {job.name: samples[job.name] for job in outcomes if job.case.data == "0"}
    together = verdicts(samples)
    return [
        Comparison(
            run,
            job.name.rpartition(" ")[0],
            int(job.case.data),
            samples[job.name],
            process_interval(samples[job.name]),
            together[job.name],
            verdicts(identical | {job.name: samples[job.name]})[job.name],
        )
        for job in outcomes
        if len(samples[job.name]) > 1
    ]


def so_far(comparisons: Sequence[Comparison]) -> str:
    """Return in a few words what was called what."""
    groups = {planted: [one for one in comparisons if one.planted == planted] for planted in sorted(set(PLANTED))}
    alarms = sum(one.verdict in ("faster", "slower") for one in groups[0])
    slower = (
        f"{planted} %: {sum(one.verdict == 'slower' for one in group)} of {len(group)}" for planted, group in groups.items()
    )
    return f"false alarms {alarms} of {len(groups[0])}, slowdowns found {', '.join(list(slower)[1:])}"


class Planted(NamedTuple):
    """What became of all works that one slowdown, in percent, was planted in."""

    percent: int
    slower: Rate
    faster: Rate
    slower_alone: Rate
    covered: Rate
    half_width: float  # median


class Resolution(NamedTuple):
    """What this machine can resolve, and at what cost."""

    planted: list[Planted]
    alarms: Rate  # on identical code
    covered: Rate  # of all comparisons
    floor: tuple[float, float]  # how far from 1 half, and nine tenths, of the intervals of identical code reach
    seconds_a_case: float
    spent: Spent
    engine_part: float  # of the time in which works ran


def resolution_of(calibration: Calibration) -> Resolution | None:
    """Return what the comparisons tell; None where no run is complete."""
    comparisons, spent = calibration.comparisons, calibration.spent
    if not comparisons:
        return None
    identical = [one for one in comparisons if one.planted == 0]
    floor = sorted(max(one.interval.high, 1 / one.interval.low) - 1 for one in identical)
    return Resolution(
        [_planted(percent, comparisons) for percent in sorted({one.planted for one in comparisons})],
        rate(sum(one.verdict in ALARM for one in identical), len(identical)),
        rate(sum(one.is_covered for one in comparisons), len(comparisons)),
        (floor[len(floor) // 2], floor[len(floor) * 9 // 10]),
        calibration.seconds / calibration.cases,
        spent,
        (spent.starting + spent.bookkeeping) / (spent.timed + spent.warming),
    )


def _planted(percent: int, comparisons: Sequence[Comparison]) -> Planted:
    group = [one for one in comparisons if one.planted == percent]
    return Planted(
        percent,
        rate(sum(one.verdict == "slower" for one in group), len(group)),
        rate(sum(one.verdict == "faster" for one in group), len(group)),
        rate(sum(one.verdict_alone == "slower" for one in group), len(group)),
        rate(sum(one.is_covered for one in group), len(group)),
        statistics.median(one.interval.half_width for one in group),
    )
