"""What this machine can resolve: works against their own clones, with and without a planted slowdown of known size."""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from bench.engine.calibration import call_overhead, jobs_of
from bench.engine.jobs import PRECISION, PROCESSES, Effort, Job, Spent
from bench.engine.processes import Means, fork_server_for, measure_all
from bench.findings.calibration import Calibration, Comparison, judge, resolution_of, so_far
from bench.hooks.progress import Progress
from bench.hooks.values import positive, threads, whole
from bench.machine.facts import facts
from bench.runs.files import as_json, write_whole
from bench.tables.calibration import lines as calibration_lines
from bench.tables.text import screen_of_output
from sparse_models.errors import InputError

HELP = "measure what this machine can resolve"
BUDGET = 900.0
COMPARISONS = 200  # of identical code, at least
# Until whoever started it is gone, whatever ended that.
LOADING = "import os, torch; torch.set_num_threads(1); a = torch.rand(512, 512); by = {}\nwhile os.getppid() == by: a @ a"


def add_arguments(tool: argparse.ArgumentParser) -> None:
    """Add the tool's options."""
    tool.add_argument("--budget", default=BUDGET, metavar="SECONDS", help=f"for all of it; default: {BUDGET:g}")
    tool.add_argument("--processes", default=PROCESSES, metavar="N", help=f"for each run; default: {PROCESSES}")
    tool.add_argument("--precision", default=PRECISION, metavar="FRACTION", help=f"as of pytest bench; default: {PRECISION:g}")
    tool.add_argument("--comparisons", default=COMPARISONS, metavar="N", help="of identical code, at least")
    tool.add_argument("--threads", metavar="N", help="CPU threads; default: PyTorch's own")
    tool.add_argument("--load", default=0, metavar="N", help="cores to keep busy with other processes meanwhile; default: 0")
    tool.add_argument("--json", type=Path, metavar="PATH", help="where to save everything that was measured")


def run(asked: argparse.Namespace, tell: Callable[[str], None]) -> int:
    """Calibrate; 1 where nothing came of it."""
    effort = Effort(whole(str(asked.processes)), positive(str(asked.precision)), positive(str(asked.budget)))
    load = 0 if str(asked.load) == "0" else whole(str(asked.load))
    if asked.json is not None and not asked.json.parent.is_dir():
        raise InputError(f"--json: expected a path in a folder that exists, got {asked.json}; make the folder")
    jobs = jobs_of("cpu", threads(asked.threads))
    tell(f"{len(jobs)} comparisons a run in up to {effort.processes} fresh processes, at most {effort.budget:.0f} s (--budget)")
    with loaded(load):
        found = calibrate(jobs, effort, tell, whole(str(asked.comparisons)))
    content = record(found, effort, load)
    for line in calibration_lines(resolution_of(found), content["call_overhead_seconds"]):
        tell(line)
    if asked.json is not None:
        write_whole(asked.json, as_json(content) + b"\n")
        tell(f"saved {asked.json}")
    return 0 if found.comparisons and found.failure is None else 1


def calibrate(jobs: Sequence[Job], effort: Effort, tell: Callable[[str], None], comparisons: int = COMPARISONS) -> Calibration:
    """Measure `jobs` run after run, each as `pytest bench` measures its cases, until the budget of all runs is spent.

    At least `comparisons` of identical code are aimed at; Ctrl-C, the budget and a failure keep the runs that are complete.
    """
    identical = sum(job.case.data == "0" for job in jobs)
    runs = -(-comparisons // identical)
    progress = Progress(_write, screen_of_output().width if sys.stdout.isatty() else None)
    start, found, spent, cases, failure = time.monotonic(), list[Comparison](), Spent(), 0, None
    for run in range(runs):
        left = effort.budget - (time.monotonic() - start)
        if left <= 0:
            tell(f"stopped at the budget of {effort.budget:g} s (--budget) after {run} of {runs} runs")
            break
        with closing(fork_server_for(jobs)) as fork_server:
            own = effort._replace(budget=left / (runs - run))
            results = measure_all(jobs, own, Means(fork_server, progress=progress.show), label=f"run {run + 1} of {runs}, ")
            progress.clear()
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


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


@contextmanager
def loaded(processes: int) -> Iterator[None]:
    """Keep as many cores busy with matrix products of other processes."""
    loads = list[subprocess.Popen[bytes]]()
    try:
        for _ in range(processes):  # Ctrl-C is theirs, too, of which they need not tell
            loads.append(subprocess.Popen([sys.executable, "-c", LOADING.format(os.getpid())], stderr=subprocess.DEVNULL))  # noqa: S603  # our own line
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
