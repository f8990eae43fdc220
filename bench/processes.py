"""Cases in, what each of several fresh processes measured of them out.

Every process goes through all cases that still need it, in a random order of its own. So what memory looks like when a case's
turn comes, and what the machine does meanwhile, differ from process to process, and the interval over processes holds them.
"""

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from bench.cases import Case
from bench.journal import Journal
from bench.nursery import Nursery
from bench.pairing import PATIENCE, Patience, Race
from bench.turns import Turns
from bench.verdicts import MIN_PROCESSES, is_clear, process_interval

PROCESSES, PRECISION, BUDGET = 12, 0.05, 170.0  # processes; half-width of an interval, as a fraction; seconds
# For the plan alone: the start of the first process, and a case in a process.
STARTING_SECONDS, LAYER_SECONDS, TRAINING_SECONDS = 2.0, 0.08, 0.5
# Memory that is freed stays with the process. Otherwise glibc may give it back after every step, by how it lies, and all pages
# of the next step be faulted in anew: that made dense's step take 13 ms in one process and 17 in another.
KEPT = {"MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**25)}
ALONE = {"TORCHINDUCTOR_COMPILE_THREADS": "1"}  # where dense is compiled: the other threads would be processes
POOLS = ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"]


class Job(NamedTuple):
    """A case and the body that measures it, by name."""

    name: str
    module: str
    function: str
    case: Case


class Effort(NamedTuple):
    """How much to measure: processes, relative half-width at which a case is done, seconds for the run, for a first visit."""

    processes: int
    precision: float
    budget: float
    visit: float = PATIENCE.seconds


class Outcome:
    """What the processes said of one case so far."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.races: list[Race] = []
        self.processes: list[int] = []  # which process each race is from
        self.facts: dict[str, Any] = {}
        self.failure: str | None = None

    def add(self, process: int, race: Race, facts: dict[str, Any]) -> None:
        """Take what a process measured in one visit: all its visits make one race."""
        self.facts = self.facts or facts
        if process in self.processes:
            at = self.processes.index(process)
            self.races[at] = self.races[at].joined(race)
        else:
            self.processes.append(process)
            self.races.append(race)

    @property
    def speedups(self) -> list[float]:
        """One speed-up a process."""
        return [race.speedup for race in self.races]

    def done(self, job: Job, effort: Effort) -> bool:
        """Tell whether the case needs no further process.

        A training takes one: its replication are its seeds. Any other case takes all processes, or as many as it needs for an
        interval as narrow as asked and a verdict, as far as it alone decides it.
        """
        if self.failure is not None or (job.case.op == "train" and self.races):
            return True
        if len(self.races) < min(MIN_PROCESSES, effort.processes):
            return False
        if len(self.races) >= effort.processes:
            return True
        return process_interval(self.speedups).half_width <= effort.precision and is_clear(self.speedups)


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


class Results(NamedTuple):
    """What a run measured, by name of the case, why it stopped short, if it did, and where its time went."""

    outcomes: dict[str, Outcome]
    interrupted: bool
    out_of_time: bool
    spent: Spent


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


class Means(NamedTuple):
    """What jobs are measured with: where processes come from, the clock, what outlives the run, and whose turn it is."""

    nursery: Nursery
    timer: str = "time.perf_counter"
    disable_gc: bool = False
    journal: Journal | None = None
    turns: Turns | None = None


def nursery_for(jobs: Sequence[Job]) -> Nursery:
    """Return the nursery of processes that can measure the jobs; to be closed."""
    # Libraries size their pools as they load, and none may take more threads than the largest case.
    pools = dict.fromkeys(POOLS, str(max((job.case.threads for job in jobs), default=1)))
    return Nursery({**pools, **KEPT, **ALONE})


def measure_all(
    jobs: Sequence[Job],
    effort: Effort,
    tell: Callable[[str], None],
    means: Means,
    known: Mapping[str, Any] | None = None,
    label: str = "",
) -> Results:
    """Measure the jobs in fresh processes one after another, until each is done, the budget is spent or Ctrl-C comes.

    What a journal holds from before counts, and what is measured is added to it. With turns, each process waits for its own.
    What is `known`, every process knows; `label` stands before what is told.

    The first process measures every case but the trainings of other seeds even past the budget: a case without a result
    is no result. A process that dies is replaced; the case it died in has failed, no other.
    """
    outcomes = {job.name: Outcome() for job in jobs}
    asked = {"patience": Patience(effort.visit, effort.precision / 2), "timer": means.timer, "disable_gc": means.disable_gc}
    run = _Run(outcomes, means, asked, dict(known or {}))
    run.take_up({job.name: job for job in jobs})
    deadline = time.monotonic() + effort.budget
    starting = STARTING_SECONDS
    spent = Spent()
    interrupted = out_of_time = False
    try:
        for process in range(effort.processes):
            waiting = _in_random_order(
                job
                for job in jobs
                if not outcomes[job.name].done(job, effort)
                and _due(job, process, effort)
                and process not in outcomes[job.name].processes
            )
            if not waiting:
                continue
            if means.turns:
                deadline += means.turns.take(f"{label}process {process + 1} of {effort.processes}")
            began, total = time.monotonic(), len(waiting)
            # Its share of the time left; the processes that come after have the same, if this one needs no more.
            end = began + (deadline - began) / (effort.processes - process)
            one = Spent()
            while waiting:
                seconds = end - time.monotonic() - starting
                waiting, some = run.process(process, waiting, seconds, deadline if process else None)
                one += some
            starting = one.starting
            now = time.monotonic()
            one = one._replace(bookkeeping=max(0.0, now - began - sum(one)))
            spent += one
            left = sum(not outcomes[job.name].done(job, effort) for job in jobs)
            done = f"{total} case{'s' * (total != 1)} in {now - began:.0f} s, {left} left to measure further"
            tell(f"{label}process {process + 1} of {effort.processes}: {done}")
            out_of_time = now > deadline and left > 0
            if out_of_time:
                break
    except KeyboardInterrupt:
        interrupted = True
    return Results(outcomes, interrupted, out_of_time, spent)


def _in_random_order(jobs: Iterable[Job]) -> list[Job]:
    """Return the shapes in random order, and within a shape its cases: they share their tensors."""
    jobs = list(jobs)
    random.SystemRandom().shuffle(jobs)
    shapes = list(dict.fromkeys(job.case.shape for job in jobs))
    return sorted(jobs, key=lambda job: shapes.index(job.case.shape))


def _due(job: Job, process: int, effort: Effort) -> bool:
    """Tell whether the job belongs in this process: the trainings of a seed all run in the seed's own."""
    return job.case.op != "train" or job.case.seed % effort.processes == process


class _Run:
    """What stays the same from one process of a run to the next."""

    def __init__(self, outcomes: dict[str, Outcome], means: Means, asked: dict[str, Any], memo: dict[str, Any]) -> None:
        self.outcomes, self.nursery, self.asked, self.memo = outcomes, means.nursery, asked, memo
        self.journal = means.journal

    def take_up(self, jobs: Mapping[str, Job]) -> None:
        """Take from the journal what a broken run has measured."""
        for process, name, said in self.journal.said if self.journal else ():
            if name in jobs:
                self._take(said, jobs[name], process)

    def process(self, process: int, jobs: list[Job], seconds: float, deadline: float | None) -> tuple[list[Job], Spent]:
        """Measure jobs in one fresh process, once each and for `seconds` all those again that are not narrow.

        Return the jobs left over where it died, but for the one it died in, and the time.
        """
        cases = [(job.module, job.function, job.case) for job in jobs]
        left, current, ready, spent, began = dict(enumerate(jobs)), None, False, Spent(), time.monotonic()
        fresh = self.nursery.run({**self.asked, "cases": cases, "memo": self.memo, "seconds": seconds})
        while True:
            try:
                said = next(fresh)
            except StopIteration as end:
                death = end.value
                break
            if not ready:
                spent += Spent(starting=time.monotonic() - began)
            ready = True
            current = said.get("begin")
            if "case" in said:
                spent += self._take(said, jobs[said["case"]], process)
                if self.journal:
                    self.journal.add(process, jobs[said["case"]].name, said)
                left.pop(said["case"], None)
            if deadline is not None and time.monotonic() > deadline:
                fresh.close()
                return [], spent
        if death is None:
            return [], spent
        # Between two cases it is the next that pays, so that a process that always dies there comes to an end.
        died_in = jobs if not ready else [jobs[current]] if current is not None else list(left.values())[:1]
        for job in died_in:
            self.outcomes[job.name].failure = death
        return [job for job in left.values() if job not in died_in], spent

    def _take(self, said: dict[str, Any], job: Job, process: int) -> Spent:
        outcome = self.outcomes[job.name]
        self.memo.update(said["memo"])
        if "failure" in said:
            outcome.failure = said["failure"]
            return Spent()
        outcome.add(process, Race(*said["race"]), said["facts"])
        whole, raced, timed = (said["spent"][name] for name in ("whole", "raced", "timed"))
        return Spent(timed, raced - timed, whole - raced)
