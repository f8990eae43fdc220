"""What the processes said of works against their clones in, what was called what out, beside what was planted."""

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from bench.engine.calibration import PLANTED
from bench.engine.jobs import Job, Spent
from bench.runs.outcome import Outcome
from bench.statistics.intervals import Interval
from bench.statistics.verdicts import process_interval, verdicts


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
