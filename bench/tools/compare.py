"""Saved runs side by side: two of one machine as before and now, any number and any machines by where they agree.

A run is a path, a number (4 is 0004_*), a glob, a folder, or any of these on a storage that fsspec knows (s3://, gs:// ...).
"""

import argparse
from collections.abc import Callable

from bench.comparisons.comparison import compare
from bench.comparisons.machines import machines_of
from bench.runs.locate import STORAGE, read_runs
from bench.tables.comparison import text
from bench.tables.machines import lines as machines_lines

HELP = "compare saved runs, also across machines"


def add_arguments(tool: argparse.ArgumentParser) -> None:
    """Add the tool's options."""
    tool.add_argument("runs", nargs="+", metavar="RUN", help="path, number, glob, folder or URL of saved runs")
    tool.add_argument("--storage", default=STORAGE, metavar="FOLDER", help=f"where numbers are looked up; default: {STORAGE}")


def run(asked: argparse.Namespace, tell: Callable[[str], None]) -> int:
    """Print the comparison."""
    runs, skipped = read_runs(asked.runs, asked.storage)
    both = compare(*runs) if len(runs) == 2 else None
    for line in text(both) if both and both.is_sound else machines_lines(machines_of(runs)):
        tell(line)
    for line in skipped:
        tell(line)
    return 0
