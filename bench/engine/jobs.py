"""What is asked of the engine and what it gives back: cases to measure, how thoroughly, what came of them, and the time."""

import math
import statistics
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from bench.cases import Case
from bench.engine.pairing import PATIENCE
from bench.runs.outcome import Outcome
from bench.statistics.changes import MIN_PROCESSES
from bench.statistics.sequential import fewest_alike
from bench.statistics.verdicts import WRONG_VERDICTS, is_clear, process_interval

PROCESSES, PRECISION, BUDGET = 12, 0.05, 170.0  # processes; half-width of an interval, as a fraction; seconds
EFFECT = 4  # an interval that is narrower than the effect by this is narrow enough: none takes 6 [5 7] for anything but faster
# For the plan alone: the start of the first process, and a case in a process.
STARTING_SECONDS, LAYER_SECONDS, TRAINING_SECONDS = 2.0, 0.12, 0.5


class Job(NamedTuple):
    """A case and the body that measures it, by name."""

    name: str
    module: str
    function: str
    case: Case

    def is_done(self, outcome: Outcome, effort: "Effort") -> bool:
        """Tell whether the case needs no further process.

        A training takes one: its replication are its seeds. Any other case takes all processes, or as many as it needs for a
        verdict, as far as it alone decides it, and an interval as narrow as asked, or as a quarter of a large effect: the time
        is for those that are close. Where only what is beyond a factor is asked for, a case is done once the median of all
        processes cannot be; how far beyond it is takes all of them.
        """
        if outcome.failure is not None or (self.case.op == "train" and outcome.races):
            return True
        if len(outcome.races) >= effort.processes:
            return True
        if effort.beyond is not None:
            at_best = [*outcome.speedups, *[math.inf] * (effort.processes - len(outcome.speedups))]
            return statistics.median(at_best) <= effort.beyond
        if len(outcome.speedups) < effort.least:
            return False
        interval = process_interval(outcome.speedups)
        enough = max(math.log1p(effort.precision), abs(math.log(interval.median)) / EFFECT)
        return math.log1p(interval.half_width) <= enough and is_clear(outcome.speedups)


class Effort(NamedTuple):
    """How much to measure: processes, relative half-width at which a case is done, seconds for the run, for a first visit.

    With `energy`, joules beside the seconds; `least` processes for each case, if there are as many.
    """

    processes: int
    precision: float
    budget: float
    visit: float = PATIENCE.seconds
    energy: bool = False
    least: int = MIN_PROCESSES  # what a comparison with another run will take
    beyond: float | None = None  # the factor that the median of all processes is to be above for the case to matter


def decidable(
    jobs: Sequence[Job], outcomes: Mapping[str, Outcome], seconds: Mapping[str, float], left: float, effort: Effort
) -> list[Job]:
    """Return the jobs for which the `left` seconds suffice by the `seconds` that a visit to each one takes; at least one.

    First come those that need the fewest processes more, and of these the shortest: as many cases as can be are decided. Where
    the time does not suffice for all, those that have a verdict wait for the others, though their intervals are not narrow yet.
    Those that are left out have their turn again when others are done sooner than expected.
    """

    def needed(job: Job) -> tuple[int, float]:
        outcome = outcomes[job.name]
        enough = min(fewest_alike(outcome.speedups, WRONG_VERDICTS), effort.processes)
        processes = max(1, enough - len(outcome.speedups))
        return processes, processes * seconds.get(job.name, 0.0)

    def has_verdict(job: Job) -> bool:
        speedups = outcomes[job.name].speedups
        return len(speedups) > 1 and is_clear(speedups)

    found, total = list[Job](), 0.0
    for job in sorted(jobs, key=lambda job: (has_verdict(job), *needed(job))):
        total += needed(job)[1]
        if found and total > left:
            break
        found.append(job)
    return found


class Spent(NamedTuple):
    """Where the seconds of a run, or of one process, went."""

    timed: float = 0.0  # in rounds
    warming: float = 0.0  # running the works untimed, before and between rounds
    building: float = 0.0  # tensors, layers, gates, facts
    starting: float = 0.0  # Python and PyTorch, until a process is ready
    bookkeeping: float = 0.0  # all else: passing cases and results, deciding what is next

    def __add__(self, other: tuple[Any, ...]) -> "Spent":
        """Add up, field by field."""
        return Spent(*(own + its for own, its in zip(self, other, strict=True)))

    def __str__(self) -> str:
        """Return the parts as fractions of the whole."""
        whole = sum(self) or 1.0
        names = ("in timed rounds", "warming up", "building and checking", "starting processes", "bookkeeping")
        return ", ".join(f"{part / whole:.1%} {name}" for part, name in zip(self, names, strict=True))


class Turn(NamedTuple):
    """Where the seconds of one process, or of the visits to one kind of case, went, and how many visits they were for."""

    which: str
    visits: int
    spent: Spent

    @property
    def facts(self) -> dict[str, Any]:
        """What a saved run says of it."""
        return {"which": self.which, "visits": self.visits, **self.spent._asdict()}


class Results(NamedTuple):
    """What a run measured, by name of the case, why it stopped short, if it did, where its time went, what processes know."""

    outcomes: dict[str, Outcome]
    interrupted: bool
    out_of_time: bool
    spent: Spent
    known: Mapping[str, Any] = MappingProxyType({})
    turns: tuple[Turn, ...] = ()  # process by process
    kinds: tuple[Turn, ...] = ()  # the same seconds by operation and layer, what the first process took and what later ones did


def plan_text(jobs: Sequence[Job], effort: Effort, before: float = 0.0) -> str:
    """Return one sentence that tells what will be measured, in how many processes, and in about what time.

    `before` are the seconds that are expected to be spent before the jobs are.
    """
    trainings = sum(job.case.op == "train" for job in jobs)
    others = len(jobs) - trainings
    processes = effort.processes if others else min(effort.processes, trainings)
    expected = before + STARTING_SECONDS + processes * others * LAYER_SECONDS + trainings * TRAINING_SECONDS
    many = f"{len(jobs)} case{'s' * (len(jobs) != 1)} in up to {processes} fresh process{'es' * (processes != 1)}"
    return f"{many}, about {min(expected, effort.budget):.0f} s and at most {effort.budget:.0f} s (--processes, --budget)"
