"""Saved runs side by side: two of one machine as before and now, any number and any machines by where they agree.

A run is a path, a number (4 is 0004_*), a glob, a folder, or any of these on a storage that fsspec knows (s3://, gs:// ...).
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from bench.comparisons.comparison import compare
from bench.comparisons.gate import failures, read_limits
from bench.comparisons.machines import machines_of
from bench.runs.locate import STORAGE, read_runs
from bench.tables.comparison import text
from bench.tables.machines import lines as machines_lines
from sparse_models.errors import InputError

HELP = "compare saved runs, also across machines"


def add_arguments(tool: argparse.ArgumentParser) -> None:
    """Add the tool's options."""
    tool.add_argument("runs", nargs="+", metavar="RUN", help="path, number, glob, folder or URL of saved runs")
    tool.add_argument(
        "--fail-slower",
        metavar="PERCENT",
        help="of two runs: exit with 1 where a case is slower, as of pytest bench",
    )
    tool.add_argument("--storage", default=STORAGE, metavar="FOLDER", help=f"where numbers are looked up; default: {STORAGE}")


def run(asked: argparse.Namespace, tell: Callable[[str], None]) -> int:
    """Print the comparison; 1 where it is to fail."""
    limits = read_limits(asked.fail_slower, Path.cwd()) if asked.fail_slower else None
    runs, skipped = read_runs(asked.runs, asked.storage)
    both = compare(*runs) if len(runs) == 2 else None
    if limits and not both:
        raise InputError(f"--fail-slower: expected two runs, before and now, got {len(runs)}; name them by path")
    for line in text(both) if both and both.is_sound else machines_lines(machines_of(runs)):
        tell(line)
    for line in skipped:
        tell(line)
    failed = failures(both, limits) if both and limits else []
    for line in failed:
        tell(line)
    return 1 if failed else 0
