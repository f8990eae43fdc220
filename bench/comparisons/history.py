"""Runs of one machine in, each case over them out, and the steps of its level: which stand, and which someone accepted."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from bench.comparisons.cases import DEFINITION, definition_of
from bench.comparisons.change_points import RUNS_NEEDED, Point, Step, stands, steps
from bench.runs.accepted import step_of
from bench.runs.plain_text import printable
from bench.runs.saved import Run, interval


class Series(NamedTuple):
    """A case over the runs in which it means the same, oldest first."""

    case: str
    points: list[Point]
    note: str = ""  # what was another in the definition before, where the case had one


def all_series(runs: Sequence[Run]) -> list[Series]:
    """Return the series of every case by name, several for a case whose definition changed, oldest first."""
    found: dict[str, dict[tuple[Any, ...], Series]] = {}
    last: dict[str, tuple[Any, ...]] = {}
    for run in sorted(runs, key=lambda run: (run.time, run.name)):
        for name, measured in run.cases.items():
            definition = definition_of(measured.row)
            known = found.setdefault(name, {})
            if definition not in known:
                known[definition] = Series(name, [], _note(last[name], definition) if name in last else "")
            known[definition].points.append(Point(run, measured, interval(measured)))
            last[name] = definition
    return [series for _, by_definition in sorted(found.items()) for series in by_definition.values()]


def _note(old: tuple[Any, ...], new: tuple[Any, ...]) -> str:
    field, was, now = next(each for each in zip(DEFINITION, old, new, strict=True) if each[1] != each[2])
    return f"{field} was {was} and is {now}"


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


def found_in(series: Series, known: Mapping[tuple[str, str, str, str], str]) -> Iterator[Found]:
    """Yield the steps of a series; `known` says why those are accepted that are."""
    every = steps(series.points)
    for step in every:
        reason = known.get(step_of(series.case, series.points[step.at].run), "")
        yield Found(series, step, reason, stands(step, every))


class Overview(NamedTuple):
    """The steps of all cases, the newest first; how many cases have none, or too few runs for one; and definitions anew."""

    found: list[Found]
    calm: int
    too_few: int
    anew: dict[tuple[str, str], int]  # cases by the run from which on they mean something else, and what


def overview_of(every: Sequence[Series], found: Sequence[Found]) -> Overview:
    """Return what is told of all cases together."""
    cases = {series.case for series in every}
    known = {series.case for series in every if len(series.points) >= RUNS_NEEDED}
    calm = known - {one.series.case for one in found}
    anew = Counter((series.points[0].run.label, series.note) for series in every if series.note)
    newest_first = sorted(found, key=lambda one: one.run.time, reverse=True)
    return Overview(newest_first, len(calm), len(cases - known), dict(anew))
