"""A saved run as a page to look at: what it says, in figures and in words, opens anywhere and needs no network.

A run is a path, a number (4 is 0004_*), a glob, a folder, or any of these on a storage that fsspec knows. The page is of the
newest of the runs; the others are set beside it. Without RUN it is of this machine's newest, with those before it.
"""

import argparse
import contextlib
from collections.abc import Callable
from pathlib import Path

from bench.report.content import content_of
from bench.report.write import FIGURE, PICTURES, check, write
from bench.runs import accepted
from bench.runs.locate import STORAGE, own_folders, read_runs
from bench.runs.plain_text import printable
from bench.runs.saved import Run
from sparse_models.errors import InputError

HELP = "a page to look at, and figures, of saved runs"
PAGE = "report.html"
BEFORE = 30  # runs of this machine at most, where none is named


def add_arguments(tool: argparse.ArgumentParser) -> None:
    """Add the tool's options."""
    tool.add_argument("runs", nargs="*", metavar="RUN", help="path, number, glob, folder or URL; default: this machine's")
    out = f"what to write, by the end of its name: .html, .md, .csv, .parquet, .svg or .png; again for more; default: {PAGE}"
    tool.add_argument("--out", action="append", type=Path, metavar="FILE", help=out)
    which = f"which figure .svg and .png hold; default: {FIGURE} or, where the run has none, its first"
    tool.add_argument("--figure", metavar="NAME", help=which)
    tool.add_argument("--storage", default=STORAGE, metavar="FOLDER", help=f"where runs are looked up; default: {STORAGE}")


def run(asked: argparse.Namespace, tell: Callable[[str], None]) -> int:
    """Write the report, and say where it lies."""
    paths = asked.out or [Path(PAGE)]
    for path in paths:
        check(path)
    runs, skipped = read_runs(asked.runs, asked.storage) if asked.runs else runs_here(asked.storage)
    # A folder may hold the steps that are accepted, which are no run.
    skipped = [line for line in skipped if not line.startswith(f"skipped {printable(str(accepted.path_of(asked.storage)))}:")]
    known = {one.step: one.reason for one in accepted.read(asked.storage)}
    figure = write(content_of(runs, known, skipped), paths, asked.figure)
    for line in skipped:
        tell(line)
    for path in paths:
        tell(f"wrote {path}: figure {figure}" if path.suffix in PICTURES else f"wrote {path}")
    return 0


def runs_here(storage: str) -> tuple[list[Run], list[str]]:
    """Return the newest saved runs of this machine, or of the only one there is; raises InputError where there is neither."""
    for folder in own_folders():
        with contextlib.suppress(InputError):
            runs, skipped = read_runs([f"{folder}/[0-9]*"], storage)
            return runs[-BEFORE:], skipped
    with contextlib.suppress(InputError):
        runs, skipped = read_runs([storage], storage)
        if len({run.machine for run in runs}) == 1:
            return runs[-BEFORE:], skipped
    told = printable(storage)
    raise InputError(f"expected a saved run of this machine in {told}, got none; name a run, or measure one: make bench")
