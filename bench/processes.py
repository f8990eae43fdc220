"""Cases in, what each of several fresh processes measured of them out.

Every process goes through all cases that still need it, in a random order of its own. So what memory looks like when a case's
turn comes, and what the machine does meanwhile, differ from process to process, and the interval over processes holds them.
"""

import contextlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from bench.cases import Case
from bench.intervals import MIN_PROCESSES, process_interval
from bench.pairing import Race

PROCESSES, PRECISION, BUDGET = 8, 0.05, 165.0  # processes; half-width of an interval, as a fraction; seconds
STARTING_SECONDS, LAYER_SECONDS, TRAINING_SECONDS = 3.0, 0.08, 0.7  # for the plan alone: a start, and a case in a process


class Job(NamedTuple):
    """A case and the body that measures it, by name."""

    name: str
    module: str
    function: str
    case: Case


class Effort(NamedTuple):
    """How much to measure: processes, relative half-width at which a case is done, seconds for the whole run."""

    processes: int
    precision: float
    budget: float


class Outcome:
    """What the processes said of one case so far."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.races: list[Race] = []
        self.facts: dict[str, Any] = {}
        self.failure: str | None = None

    @property
    def speedups(self) -> list[float]:
        """One speed-up a process."""
        return [race.speedup for race in self.races]

    def done(self, job: Job, effort: Effort) -> bool:
        """Tell whether the case needs no further process.

        A training takes one: its replication are its seeds. Any other case takes all processes, or as many as its interval
        needs to be as narrow as asked.
        """
        if self.failure is not None or (job.case.op == "train" and self.races):
            return True
        if len(self.races) < min(MIN_PROCESSES, effort.processes):
            return False
        if len(self.races) >= effort.processes:
            return True
        interval = process_interval(self.speedups)
        return max(interval.high / interval.median, interval.median / interval.low) <= 1 + effort.precision


class Results(NamedTuple):
    """What a run measured, by name of the case, and why it stopped short, if it did."""

    outcomes: dict[str, Outcome]
    interrupted: bool
    out_of_time: bool


def plan_text(jobs: Sequence[Job], effort: Effort) -> str:
    """Return one sentence that tells what will be measured, in how many processes, and in about what time."""
    trainings = sum(job.case.op == "train" for job in jobs)
    others = len(jobs) - trainings
    processes = effort.processes if others else min(effort.processes, trainings)
    expected = processes * (STARTING_SECONDS + others * LAYER_SECONDS) + trainings * TRAINING_SECONDS
    many = f"{len(jobs)} case{'s' * (len(jobs) != 1)} in up to {processes} fresh process{'es' * (processes != 1)}"
    return f"{many}, about {min(expected, effort.budget):.0f} s and at most {effort.budget:.0f} s (--processes, --budget)"


def measure_all(
    jobs: Sequence[Job],
    effort: Effort,
    tell: Callable[[str], None],
    timer: str = "time.perf_counter",
    *,
    disable_gc: bool = False,
) -> Results:
    """Measure the jobs in fresh processes one after another, until each is done, the budget is spent or Ctrl-C comes.

    The first process measures every case but the trainings of other seeds even past the budget: a case without a result
    is no result. A process that dies is replaced; the case it died in has failed, no other.
    """
    outcomes = {job.name: Outcome() for job in jobs}
    memo: dict[str, Any] = {}
    deadline = time.monotonic() + effort.budget
    interrupted = out_of_time = False
    try:
        for process in range(effort.processes):
            waiting = _in_random_order(
                job for job in jobs if not outcomes[job.name].done(job, effort) and _due(job, process, effort)
            )
            if not waiting:
                continue
            began, total = time.monotonic(), len(waiting)
            while waiting:
                waiting = _run(waiting, outcomes, memo, timer, deadline if process else None, disable_gc=disable_gc)
            now = time.monotonic()
            left = sum(not outcomes[job.name].done(job, effort) for job in jobs)
            done = f"process {process + 1} of {effort.processes}: {total} cases in {now - began:.0f} s"
            tell(f"{done}, {left} left to measure further")
            out_of_time = now > deadline and left > 0
            if out_of_time:
                break
    except KeyboardInterrupt:
        interrupted = True
    return Results(outcomes, interrupted, out_of_time)


def _in_random_order(jobs: Iterable[Job]) -> list[Job]:
    """Return the shapes in random order, and within a shape its cases: they share their tensors."""
    jobs = list(jobs)
    random.SystemRandom().shuffle(jobs)
    shapes = list(dict.fromkeys(job.case.shape for job in jobs))
    return sorted(jobs, key=lambda job: shapes.index(job.case.shape))


def _due(job: Job, process: int, effort: Effort) -> bool:
    """Tell whether the job belongs in this process: the trainings of a seed all run in the seed's own."""
    return job.case.op != "train" or job.case.seed % effort.processes == process


def _run(
    jobs: list[Job], outcomes: dict[str, Outcome], memo: dict[str, Any], timer: str, deadline: float | None, *, disable_gc: bool
) -> list[Job]:
    """Measure jobs in one fresh process, and return those left over where it died, without the one it died in."""
    asked = {
        "cases": [(number, job.module, job.function, job.case) for number, job in enumerate(jobs)],
        "memo": memo,
        "timer": timer,
        "disable_gc": disable_gc,
    }
    finished, ready = 0, False
    command = [sys.executable, "-m", "bench.worker"]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True) as worker,  # noqa: S603  # our own module
    ):
        assert worker.stdin is not None
        assert worker.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError):  # it died before it read: told below
                worker.stdin.write(json.dumps(asked))
                worker.stdin.close()
            for line in worker.stdout:
                ready = True
                if line.strip():
                    _take(json.loads(line), jobs, outcomes, memo)
                    finished += 1
                if deadline is not None and time.monotonic() > deadline:
                    worker.kill()
                    return []
        except BaseException:
            worker.kill()
            raise
        code = worker.wait()
        errors.seek(0)
        said = errors.read().strip().splitlines()
    if finished == len(jobs):
        return []
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    for job in jobs[finished : finished + 1] if ready else jobs:
        outcomes[job.name].failure = f"the process that measured this case died ({how}): {said[-1] if said else 'no message'}"
    return jobs[finished + 1 :] if ready else []


def _take(result: dict[str, Any], jobs: list[Job], outcomes: dict[str, Outcome], memo: dict[str, Any]) -> None:
    outcome = outcomes[jobs[result["case"]].name]
    memo.update(result["memo"])
    if "failure" in result:
        outcome.failure = result["failure"]
        return
    outcome.races.append(Race(result["seconds"], result["dense_seconds"]))
    outcome.facts = outcome.facts or result["facts"]
