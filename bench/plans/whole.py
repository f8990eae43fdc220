"""Races of a whole model against itself as it is in, one of each process; what they say of a plan and of its rivals out."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bench.plans.in_place import PLANNED
from bench.runs.outcome import Race
from bench.statistics.intervals import Interval
from bench.statistics.verdicts import process_interval, verdicts

Races = Sequence[Mapping[str, Race]]  # of each process, by arm


class Raced(NamedTuple):
    """A whole model in another way against the model as it is, over fresh processes."""

    speedup: Interval
    verdict: str
    dense_seconds: float
    seconds: float
    processes: int


class RivalRaced(NamedTuple):
    """Dense in another way against the model as it is, and how many times as fast as the plan it is, where there is one."""

    name: str
    raced: Raced
    against_plan: Interval | None
    verdict: str | None  # "faster" where it beats the plan


def interval(values: Sequence[float]) -> Interval:
    """Return the interval over processes; of one alone, nothing bounds it."""
    return process_interval(values) if len(values) > 1 else Interval(values[0], 0.0, math.inf)


def planned_of(races: Races) -> Raced | None:
    """Return what the model as planned gains; None where no process said."""
    return _raced([one[PLANNED] for one in races if PLANNED in one])


def rivals_of(races: Races, names: Sequence[str]) -> list[RivalRaced]:
    """Return what dense gains in other ways, and against the plan in the processes that raced both."""
    found = [(name, raced) for name in names if (raced := _raced([one[name] for one in races if name in one]))]
    against = {
        name: [one[name].speedup / one[PLANNED].speedup for one in races if PLANNED in one and name in one] for name, _ in found
    }
    verdict = verdicts(against)
    return [
        RivalRaced(name, raced, interval(against[name]), verdict[name])
        if against[name]
        else RivalRaced(name, raced, None, None)
        for name, raced in found
    ]


def _raced(races: Sequence[Race]) -> Raced | None:
    if not races:
        return None
    speedups = [race.speedup for race in races]
    dense, own = (statistics.median(race.median(arm) for race in races) for arm in ("dense_seconds", "seconds"))
    return Raced(interval(speedups), verdicts({"whole": speedups})["whole"], dense, own, len(races))
