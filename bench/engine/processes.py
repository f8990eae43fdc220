"""Cases in, what each of several fresh processes measured of them out.

Every process goes through all cases that still need it, in a random order of its own. So what memory looks like when a case's
turn comes, and what the machine does meanwhile, differ from process to process, and the interval over processes holds them.
"""

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from bench.engine.forkserver import ForkServer
from bench.engine.interleaving import Interleaving
from bench.engine.jobs import STARTING_SECONDS, Effort, Job, Results, Spent, Turn, decidable
from bench.engine.journal import Journal
from bench.engine.pairing import Patience
from bench.runs.outcome import Outcome, Race

# Memory that is freed stays with the process. Otherwise glibc may give it back after every step, by how it lies, and all pages
# of the next step be faulted in anew: that made dense's step take 13 ms in one process and 17 in another.
KEPT = {"MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**25)}
ALONE = {"TORCHINDUCTOR_COMPILE_THREADS": "1"}  # where dense is compiled: the other threads would be processes
NO_DRIVER = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}  # is begun by asking whether there is a GPU: forks could not use it then
POOLS = ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"]


class Means(NamedTuple):
    """What jobs are measured with: where processes come from, the clock, what outlives the run, and whose turn it is."""

    fork_server: ForkServer
    timer: str = "time.perf_counter"
    disable_gc: bool = False
    progress: Callable[[str], None] = lambda _: None  # told over and over where the run is
    journal: Journal | None = None
    turns: Interleaving | None = None
    choices: Mapping[str, Any] = MappingProxyType({})  # of our own kernels' variants


def fork_server_for(jobs: Sequence[Job]) -> ForkServer:
    """Return the fork server of processes that can measure the jobs; to be closed."""
    return fork_server_of(max((job.case.threads for job in jobs), default=1))


def fork_server_of(threads: int) -> ForkServer:
    """Return the fork server of processes none of whose pools has more threads: libraries size them as they load."""
    return ForkServer({**dict.fromkeys(POOLS, str(threads)), **KEPT, **ALONE, **NO_DRIVER})


def measure_all(
    jobs: Sequence[Job], effort: Effort, means: Means, known: Mapping[str, Any] | None = None, label: str = ""
) -> Results:
    """Measure the jobs in fresh processes one after another, until each is done, the budget is spent or Ctrl-C comes.

    What a journal holds from before counts, and what is measured is added to it. With turns, each process waits for its own.
    What is `known`, every process knows; `label` stands before what is told of the progress.

    The budget is a bound: the case whose turn it is when the time is over is the last. Where it does not suffice for a verdict
    on every case, it goes to those on which it does. A process that dies is replaced; the case it died in has failed, no other.
    """
    outcomes = {job.name: Outcome() for job in jobs}
    asked = {"patience": Patience(effort.visit, effort.precision / 2), "timer": means.timer, "disable_gc": means.disable_gc}
    asked |= {"energy": effort.energy, "choices": dict(means.choices)}
    run = _Run(jobs, outcomes, means, asked, dict(known or {}))
    run.take_up()
    deadline = time.monotonic() + effort.budget
    starting = STARTING_SECONDS
    turns = list[Turn]()
    interrupted = out_of_time = False
    try:
        for process in range(effort.processes):
            waiting = [
                job
                for job in jobs
                if not job.is_done(outcomes[job.name], effort)
                and _due(job, process, effort)
                and process not in outcomes[job.name].processes
            ]
            if not waiting:
                continue
            which = f"{label}process {process + 1} of {effort.processes}"
            if means.turns:
                deadline += means.turns.take(which)
            began = time.monotonic()
            waiting = _in_random_order(decidable(waiting, outcomes, run.seconds, deadline - began, effort))
            # Its share of the time left; the processes that come after have the same, if this one needs no more.
            end = began + (deadline - began) / (effort.processes - process)
            one, visits = Spent(), run.visits
            while waiting:
                done = sum(job.is_done(outcomes[job.name], effort) for job in jobs)
                progress = Progress(means.progress, which, len(waiting), done, len(jobs), deadline)
                waiting, some = run.process(process, waiting, end - time.monotonic() - starting, progress)
                one += some
            starting = one.starting
            now = time.monotonic()
            one = one._replace(bookkeeping=max(0.0, now - began - sum(one)))
            turns.append(Turn(which, run.visits - visits, one))
            out_of_time = now > deadline and not all(job.is_done(outcomes[job.name], effort) for job in jobs)
            if out_of_time:
                break
    except KeyboardInterrupt:
        interrupted = True
    spent = sum((turn.spent for turn in turns), Spent())
    return Results(outcomes, interrupted, out_of_time, spent, run.known, tuple(turns), tuple(run.kinds.values()))


def _in_random_order(jobs: Iterable[Job]) -> list[Job]:
    """Return the shapes in random order, and within a shape its cases: they share their tensors."""
    jobs = list(jobs)
    random.SystemRandom().shuffle(jobs)
    shapes = list(dict.fromkeys(job.case.shape for job in jobs))
    return sorted(jobs, key=lambda job: shapes.index(job.case.shape))


def _due(job: Job, process: int, effort: Effort) -> bool:
    """Tell whether the job belongs in this process: the trainings of a seed all run in the seed's own."""
    return job.case.op != "train" or job.case.seed % effort.processes == process


class Progress(NamedTuple):
    """What is told of a run while one of its processes measures; counted before, so that to tell it disturbs nothing."""

    show: Callable[[str], None]
    which: str  # of the processes
    cases: int  # in it
    done: int  # cases of the run that need no further process
    of: int
    deadline: float

    def tell(self, left: int) -> None:
        """Tell how many cases of the process are behind it, how many of the run are done, and how much time is left."""
        seconds = max(0.0, self.deadline - time.monotonic())
        here = f"{self.cases - left} of {self.cases} case{'s' * (self.cases != 1)}"
        self.show(f"{self.which}: {here}; {self.done} of {self.of} are done, at most {seconds:.0f} s left")


class _Run:
    """What stays the same from one process of a run to the next."""

    def __init__(
        self,
        jobs: Sequence[Job],
        outcomes: dict[str, Outcome],
        means: Means,
        asked: dict[str, Any],
        known: dict[str, Any],
    ) -> None:
        self.jobs, self.outcomes, self.asked, self.known = jobs, outcomes, asked, known
        self.fork_server, self.journal = means.fork_server, means.journal
        self.seconds: dict[str, float] = {}  # that the shortest visit to each case took
        self.visits = 0
        self.kinds: dict[str, Turn] = {}

    def take_up(self) -> None:
        """Take from the journal what a broken run has measured."""
        jobs = {job.name: job for job in self.jobs}
        for process, name, said in self.journal.said if self.journal else ():
            if name in jobs:
                self._take(said, jobs[name], process)
        self.kinds.clear()  # of this run alone

    def process(self, process: int, jobs: list[Job], seconds: float, progress: Progress) -> tuple[list[Job], Spent]:
        """Measure jobs in one fresh process, once each and for `seconds` all those again that are not narrow.

        Return the jobs left over where it died, but for the one it died in, or ended as what it did spoiled it; and the time.
        """
        cases = [(job.module, job.function, job.case) for job in jobs]
        left, current, ready, spent, began = dict(enumerate(jobs)), None, False, Spent(), time.monotonic()
        is_spoiled = False
        fresh = self.fork_server.run({**self.asked, "cases": cases, "known": self.known, "seconds": seconds})
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
                is_spoiled = said.get("spoiled", False)
            progress.tell(len(left))
            if time.monotonic() > progress.deadline:
                fresh.close()
                return [], spent
        if death is None:
            return list(left.values()) if is_spoiled else [], spent
        # Between two cases it is the next that pays, so that a process that always dies there comes to an end.
        died_in = jobs if not ready else [jobs[current]] if current is not None else list(left.values())[:1]
        for job in died_in:
            self.outcomes[job.name].failure = death
        return [job for job in left.values() if job not in died_in], spent

    def _take(self, said: dict[str, Any], job: Job, process: int) -> Spent:
        outcome = self.outcomes[job.name]
        self.visits += 1
        self.known.update(said["known"])
        if "failure" in said:
            outcome.failure = said["failure"]
            return Spent()
        outcome.add(process, Race(*said["race"]), said["facts"])
        whole, raced, timed = (said["spent"][name] for name in ("whole", "raced", "timed"))
        spent = Spent(timed, raced - timed, whole - raced)
        kind = f"{job.case.op} {job.case.layer}, {'the first process' if len(outcome.races) == 1 else 'later'}"
        before = self.kinds.get(kind, Turn(kind, 0, Spent()))
        self.kinds[kind] = Turn(kind, before.visits + 1, before.spent + spent)
        # Of the first visit, which gates and compiles as well, the rounds tell what the next will take.
        self.seconds[job.name] = min(self.seconds.get(job.name, 2 * raced), whole)
        return spent
