"""Two commits in turns on this machine, and whether the second is slower: what gates a pull request.

What comes after -- is handed to both sides' `pytest bench`, as in `continuous main -- --layer tiled --op forward,step`.
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from bench.compare_table import markdown, text
from bench.continuous import Measured, measure, options_of
from bench.limits import SHOWN, failures, read_limits
from bench.locate import STORAGE
from bench.options import positive
from bench.storage import save_numbered

HELP = "gate a change: measure two commits in turns"
LIMIT, BUDGET = "10%", 540.0


def add_arguments(tool: argparse.ArgumentParser) -> None:
    """Add the tool's options."""
    tool.add_argument("base", metavar="BASE", help="the commit to compare with, as main")
    tool.add_argument("head", nargs="?", default="HEAD", metavar="HEAD", help="the commit to judge; default: HEAD")
    tool.add_argument("--fail-slower", default=LIMIT, metavar="PERCENT", help=f"as of pytest bench; default: {LIMIT}")
    tool.add_argument("--budget", default=BUDGET, metavar="SECONDS", help=f"for measuring both; default: {BUDGET:g}")
    tool.add_argument("--markdown", type=Path, metavar="FILE", help="add the verdict to this file, as $GITHUB_STEP_SUMMARY")
    tool.add_argument(
        "--storage", type=Path, default=Path(STORAGE), metavar="FOLDER", help=f"for both runs; default: {STORAGE}"
    )


def run(asked: argparse.Namespace, tell: Callable[[str], None]) -> int:
    """Measure and judge; 1 where the second commit is slower or cannot be compared."""
    limits = read_limits(str(asked.fail_slower), Path.cwd())
    options = options_of(asked.others, positive(str(asked.budget)))
    measured = measure(asked.base, asked.head, options, tell)
    _save(measured, asked.storage, tell)
    failed = failures(measured.comparison, limits)
    gate = "slower, or not to be compared" if failed else f"nothing is slower by {asked.fail_slower}"
    for line in text(measured.comparison):
        tell(line)
    tell("")
    tell(f"The gate {'fails' if failed else 'passes'}: {gate}.")
    for line in failed[:SHOWN]:
        tell(line)
    if len(failed) > SHOWN:
        tell(f"and {len(failed) - SHOWN} more")
    if asked.markdown:
        with asked.markdown.open("a", encoding="utf-8") as file:
            file.write("\n".join(markdown(measured.comparison, failed, gate)) + "\n")
            file.flush()
            os.fsync(file.fileno())
    return 1 if failed else 0


def _save(measured: Measured, storage: Path, tell: Callable[[str], None]) -> None:
    """Keep both runs, each in the folder of its machine."""
    for content, each in ((measured.base, measured.comparison.old), (measured.head, measured.comparison.new)):
        tell(f"saved {save_numbered(storage / each.machine, f'continuous_{each.commit[:9]}', content)}")
