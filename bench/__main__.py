"""`python -m bench calibrate`: the tools beside `pytest bench`."""

import argparse
import sys
from pathlib import Path

from bench import calibrate, calibrate_table
from bench.options import positive, threads, whole
from bench.processes import PRECISION, PROCESSES, Effort
from sparse_models.errors import InputError

BUDGET = 900.0


def main(arguments: list[str]) -> int:
    """Run the tool that is asked for; bad input is one sentence and exit code 2."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    tools = parser.add_subparsers(required=True, metavar="TOOL")
    tool = tools.add_parser("calibrate", help="measure what this machine can resolve", description=calibrate.__doc__)
    tool.add_argument("--budget", default=BUDGET, metavar="SECONDS", help=f"for all of it; default: {BUDGET:g}")
    tool.add_argument("--processes", default=PROCESSES, metavar="N", help=f"for each run; default: {PROCESSES}")
    tool.add_argument("--precision", default=PRECISION, metavar="FRACTION", help=f"as of pytest bench; default: {PRECISION:g}")
    tool.add_argument("--comparisons", default=calibrate.COMPARISONS, metavar="N", help="of identical code, at least")
    tool.add_argument("--threads", metavar="N", help="CPU threads; default: PyTorch's own")
    tool.add_argument("--load", default=0, metavar="N", help="cores to keep busy with other processes meanwhile; default: 0")
    tool.add_argument("--json", type=Path, metavar="PATH", help="where to save everything that was measured")
    asked = parser.parse_args(arguments)
    try:
        return _calibrate(asked)
    except InputError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


def _calibrate(asked: argparse.Namespace) -> int:
    effort = Effort(whole(str(asked.processes)), positive(str(asked.precision)), positive(str(asked.budget)))
    load = 0 if str(asked.load) == "0" else whole(str(asked.load))
    if asked.json is not None and not asked.json.parent.is_dir():
        raise InputError(f"--json: expected a path in a folder that exists, got {asked.json}; make the folder")
    jobs = calibrate.jobs_of("cpu", threads(asked.threads))

    def tell(text: str) -> None:
        print(text, flush=True)

    tell(f"{len(jobs)} comparisons a run in up to {effort.processes} fresh processes, at most {effort.budget:.0f} s (--budget)")
    with calibrate.loaded(load):
        found = calibrate.calibrate(jobs, effort, tell, whole(str(asked.comparisons)))
    content = calibrate.record(found, effort, load)
    for line in calibrate_table.lines(found, content["call_overhead_seconds"]):
        tell(line)
    if asked.json is not None:
        calibrate.save(asked.json, content)
        tell(f"saved {asked.json}")
    return 0 if found.comparisons and found.failure is None else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
