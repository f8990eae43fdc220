"""Saved runs in, everything that a report tells of them out, gathered once for the page, for Markdown and for rows."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bench.comparisons.history import Found, Series, all_series, found_in
from bench.comparisons.machines import Machines, machines_of
from bench.findings.answer import Answer, answer_of
from bench.findings.figures.entries import Entry, anchors, entries
from bench.findings.figures.kernels import Roof, roofs
from bench.findings.figures.learning import Learning, learning
from bench.findings.figures.sources import source_of
from bench.findings.grouping import Place
from bench.findings.short_answer import ShortAnswer, short_answer
from bench.runs.row import Row
from bench.runs.saved import Run
from bench.tables.short_answer import lines
from bench.tables.text import Screen

ONE_LINE = Screen(100_000)  # a sentence is not broken: what shows it breaks it
LINKS = dict[tuple[str, str, float, Place], str]


class Past(NamedTuple):
    """A case over the runs of the machine, and the steps of its level."""

    series: Series
    steps: list[Found]


class Content(NamedTuple):
    """What is told of a run, and of the others that were asked for beside it; what was not measured is empty."""

    run: Run
    rows: Mapping[str, Row]
    short: ShortAnswer
    sentences: list[str]  # of the short answer
    answer: Answer
    entries: list[Entry]
    links: LINKS  # from a point to the anchor of its row
    learning: list[Learning]
    roofs: list[Roof]
    machines: Machines | None  # where there are several
    past: list[Past]  # where there are several runs of one machine
    others: list[Run]
    notes: list[str]


def content_of(runs: Sequence[Run], accepted: Mapping[tuple[str, str, str, str], str], skipped: Sequence[str] = ()) -> Content:
    """Return what a report tells: of the newest run everything, of the others what is set beside it.

    `accepted` says why those steps are accepted that are, `skipped` which files were no runs.
    """
    *others, run = sorted(runs, key=lambda one: (one.time, one.name))
    rows, notes = source_of(run)
    told = entries(rows)
    name = run.hardware.rpartition("-")[0] or run.hardware
    short = short_answer(list(rows.values()), name)
    sentences = list(lines(short, ONE_LINE)) if rows else []
    machines = machines_of(runs) if len({one.machine for one in runs}) > 1 else None
    own = [one for one in runs if one.machine == run.machine]
    series = [one for one in all_series(own) if len(one.points) > 1]
    past = [Past(one, list(found_in(one, accepted))) for one in series]
    return Content(
        run=run,
        rows=rows,
        short=short,
        sentences=sentences,
        answer=answer_of(list(rows.values())),
        entries=told,
        links=anchors(told),
        learning=learning(rows),
        roofs=roofs(rows, run.facts),
        machines=machines,
        past=past,
        others=others,
        notes=[*notes, *skipped],
    )
