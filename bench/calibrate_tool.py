"""What this machine can resolve: works against their own clones, with and without a planted slowdown of known size."""

import argparse
from collections.abc import Callable
from pathlib import Path

from bench import calibrate, calibrate_table
from bench.options import positive, threads, whole
from bench.processes import PRECISION, PROCESSES, Effort
from bench.storage import as_json, write_whole
from sparse_models.errors import InputError

HELP = "measure what this machine can resolve"
BUDGET = 900.0


def add_arguments(tool: argparse.ArgumentParser) -> None:
    """Add the tool's options."""
    tool.add_argument("--budget", default=BUDGET, metavar="SECONDS", help=f"for all of it; default: {BUDGET:g}")
    tool.add_argument("--processes", default=PROCESSES, metavar="N", help=f"for each run; default: {PROCESSES}")
    tool.add_argument("--precision", default=PRECISION, metavar="FRACTION", help=f"as of pytest bench; default: {PRECISION:g}")
    tool.add_argument("--comparisons", default=calibrate.COMPARISONS, metavar="N", help="of identical code, at least")
    tool.add_argument("--threads", metavar="N", help="CPU threads; default: PyTorch's own")
    tool.add_argument("--load", default=0, metavar="N", help="cores to keep busy with other processes meanwhile; default: 0")
    tool.add_argument("--json", type=Path, metavar="PATH", help="where to save everything that was measured")


def run(asked: argparse.Namespace, tell: Callable[[str], None]) -> int:
    """Calibrate; 1 where nothing came of it."""
    effort = Effort(whole(str(asked.processes)), positive(str(asked.precision)), positive(str(asked.budget)))
    load = 0 if str(asked.load) == "0" else whole(str(asked.load))
    if asked.json is not None and not asked.json.parent.is_dir():
        raise InputError(f"--json: expected a path in a folder that exists, got {asked.json}; make the folder")
    jobs = calibrate.jobs_of("cpu", threads(asked.threads))
    tell(f"{len(jobs)} comparisons a run in up to {effort.processes} fresh processes, at most {effort.budget:.0f} s (--budget)")
    with calibrate.loaded(load):
        found = calibrate.calibrate(jobs, effort, tell, whole(str(asked.comparisons)))
    content = calibrate.record(found, effort, load)
    for line in calibrate_table.lines(found, content["call_overhead_seconds"]):
        tell(line)
    if asked.json is not None:
        write_whole(asked.json, as_json(content) + b"\n")
        tell(f"saved {asked.json}")
    return 0 if found.comparisons and found.failure is None else 1
