"""What this machine can resolve: works against their own clones, with and without a planted slowdown of known size.

The engine that measures the suite is asked questions whose answers are known. Identical code must not be called different, a
planted slowdown must be found, and the intervals must hold the true ratio as often as they say. A slowdown of 10 % is eleven
calls where the reference makes ten: real work of the same kind, and a true ratio of exactly 10/11.
"""

import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from fractions import Fraction
from typing import Any, NamedTuple

from bench.cases import Case
from bench.intervals import Interval
from bench.machine import facts
from bench.pairing import Racer
from bench.processes import Effort, Job, Means, Outcome, Spent, measure_all, nursery_for
from bench.rounds import time_round
from bench.row import Facts
from bench.verdicts import process_interval, verdicts
from bench.workbench import build, layout_of, operation, pass_gate, problems
from sparse_models.masks import FULL
from sparse_models.registry import LAYERS

# Works of .02 to .4 ms, so that even ten or twenty calls, which it takes to plant 10 or 5 %, are a round of a few milliseconds.
# Percent of extra work planted; identical code most often, for its rate of false alarms is the smallest to be told.
PLANTED = (0, 0, 0, 0, 5, 10, 20)
OPERATIONS, SHAPES, LAYER_NAMES, SPARSITY = (
    ("forward", "backward", "step"),
    ("128x128b128", "256x256b64", "512x512b1"),
    ("dense", "csr"),
    0.9,
)
COMPARISONS = 200  # of identical code, at least
LOADING = "import torch; torch.set_num_threads(1); a = torch.rand(512, 512)\nwhile True: a @ a"


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


def jobs_of(device: str, threads: int) -> list[Job]:
    """Return the comparisons of one run."""
    jobs = []
    for op, shape, layer, (number, planted) in itertools.product(OPERATIONS, SHAPES, LAYER_NAMES, enumerate(PLANTED)):
        sparsity = 0.0 if LAYERS[layer].pattern is FULL else SPARSITY
        # A case has no field for what is planted; `data`, which only trainings use, says it.
        case = Case(op, "sparse", layer, "static", shape, sparsity, device, "float32", threads, data=str(planted), seed=number)
        jobs.append(Job(f"{op} {layer} {shape} {sparsity:g} #{number}", __name__, clone_race.__name__, case))
    return jobs


def clone_race(case: Case, race: Racer) -> Facts:
    """Time a work with planted extra calls against its clone without."""
    layout = layout_of(LAYERS[case.layer], "batch-major")
    pass_gate(case, case.layer, layout)
    parts = problems(case, case.layer)
    works = [operation(case.op, build(case.layer, parts), parts, layout) for _ in range(2)]
    ratio = 1 + Fraction(int(case.data), 100)
    race(_repeated(works[0], ratio.numerator), _repeated(works[1], ratio.denominator), case.device)
    return {}


def _repeated(work: Callable[[], object], calls: int) -> Callable[[], object]:
    def repeat() -> None:
        for _ in range(calls):
            work()

    return repeat


def calibrate(jobs: Sequence[Job], effort: Effort, tell: Callable[[str], None], comparisons: int = COMPARISONS) -> Calibration:
    """Measure `jobs` run after run, each as `pytest bench` measures its cases, until the budget of all runs is spent.

    At least `comparisons` of identical code are aimed at; Ctrl-C, the budget and a failure keep the runs that are complete.
    """
    identical = sum(job.case.data == "0" for job in jobs)
    runs = -(-comparisons // identical)
    start, found, spent, cases, failure = time.monotonic(), list[Comparison](), Spent(), 0, None
    for run in range(runs):
        left = effort.budget - (time.monotonic() - start)
        if left <= 0:
            tell(f"stopped at the budget of {effort.budget:g} s (--budget) after {run} of {runs} runs")
            break
        with closing(nursery_for(jobs)) as nursery:
            own = effort._replace(budget=left / (runs - run))
            results = measure_all(jobs, own, lambda text: tell(f"  {text}"), Means(nursery))
        if results.interrupted:
            tell(f"interrupted: {run} complete runs are kept")
            break
        failure = next((f"{name}: {one.failure}" for name, one in results.outcomes.items() if one.failure), None)
        if failure is not None:
            tell(f"{failure}; {run} complete runs are kept")
            break
        found += judge(run, {job: results.outcomes[job.name] for job in jobs})
        spent, cases = spent + results.spent, cases + len(jobs)
        tell(f"run {run + 1} of {runs}: {len(found)} comparisons in {time.monotonic() - start:.0f} s; {so_far(found)}")
    return Calibration(found, time.monotonic() - start, cases, spent, failure)


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


def call_overhead() -> float:
    """Return the seconds that the engine's own loop and clock add to each call of a round."""
    return statistics.median(time_round(lambda: None, 1000, "cpu").seconds for _ in range(101))


@contextmanager
def loaded(processes: int) -> Iterator[None]:
    """Keep as many cores busy with matrix products of other processes."""
    loads = [subprocess.Popen([sys.executable, "-c", LOADING]) for _ in range(processes)]  # noqa: S603  # our own line
    try:
        yield
    finally:
        for load in loads:
            load.kill()
            load.wait()


def record(calibration: Calibration, effort: Effort, load: int) -> dict[str, Any]:
    """Return everything that was measured, plain, for JSON."""
    return {
        "kind": "calibration",
        "schema": 1,
        "machine": facts(["cpu"]),
        "effort": effort._asdict(),
        "load": load,
        "seconds": calibration.seconds,
        "cases": calibration.cases,
        "spent_seconds": calibration.spent._asdict(),
        "call_overhead_seconds": call_overhead(),
        "comparisons": [
            {**one._asdict(), "interval": one.interval._asdict(), "truth": one.truth} for one in calibration.comparisons
        ],
    }
