"""Two commits in turns on this machine, and whether the second is slower: what gates a pull request.

What comes after -- is handed to both sides' `pytest bench`, as in `continuous main -- --layer tiled --op forward,step`.
"""

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench import grids
from bench.comparisons.comparison import Comparison, compare
from bench.comparisons.gate import SHOWN, failures, read_limits
from bench.engine.two_commits import measure_in_turns
from bench.hooks.values import positive
from bench.runs.locate import STORAGE
from bench.runs.reading import parse
from bench.runs.saved import Run
from bench.runs.storage import save_numbered
from bench.tables.comparison import markdown, text
from sparse_models.errors import InputError

HELP = "gate a change: measure two commits in turns"
LIMIT, BUDGET = "10%", 360.0
# What a change is judged by, unless asked for: trainings have three seeds, which decide nothing.
OPS = ",".join(op for op in grids.DEFAULT_OPS if op != "train")


def add_arguments(tool: argparse.ArgumentParser) -> None:
    """Add the tool's options."""
    tool.add_argument("base", metavar="BASE", help="the commit to compare with, as main")
    tool.add_argument("head", nargs="?", default="HEAD", metavar="HEAD", help="the commit to judge; default: HEAD")
    tool.add_argument("--fail-slower", default=LIMIT, metavar="PERCENT", help=f"as of pytest bench; default: {LIMIT}%")
    tool.add_argument("--budget", default=BUDGET, metavar="SECONDS", help=f"for measuring both; default: {BUDGET:g}")
    tool.add_argument("--markdown", type=Path, metavar="FILE", help="add the verdict to this file, as $GITHUB_STEP_SUMMARY")
    tool.add_argument(
        "--storage", type=Path, default=Path(STORAGE), metavar="FOLDER", help=f"for both runs; default: {STORAGE}"
    )


def run(asked: argparse.Namespace, tell: Callable[[str], None]) -> int:
    """Measure and judge; 1 where the second commit is slower or cannot be compared."""
    limits = read_limits(str(asked.fail_slower), Path.cwd())
    options = options_of(asked.others, positive(str(asked.budget)))
    contents = measure_in_turns(asked.base, asked.head, options, tell)
    comparison = compare(*(_parsed(name, content) for name, content in contents.items()), paired=True)
    _save(contents, comparison, asked.storage, tell)
    failed = failures(comparison, limits)
    gate = "slower, or not to be compared" if failed else f"nothing is slower by {asked.fail_slower}"
    for line in text(comparison):
        tell(line)
    tell("")
    tell(f"The gate {'fails' if failed else 'passes'}: {gate}.")
    for line in failed[:SHOWN]:
        tell(line)
    if len(failed) > SHOWN:
        tell(f"and {len(failed) - SHOWN} more")
    if asked.markdown:
        with asked.markdown.open("a", encoding="utf-8") as file:
            file.write("\n".join(markdown(comparison, failed, gate)) + "\n")
            file.flush()
            os.fsync(file.fileno())
    return 1 if failed else 0


def options_of(given: Sequence[str], budget: float) -> list[str]:
    """Return the options of each side's pytest: those given, the operations unless chosen, and half of the time."""
    chosen = [] if any(option.split("=")[0] == "--op" for option in given) else ["--op", OPS]
    return [*chosen, "--budget", f"{budget / 2:g}", *given]


def _parsed(name: str, content: bytes) -> Run:
    try:
        return parse(name, content)
    except InputError as error:
        raise InputError(f"{name}: expected a run that this version reads, got one that it does not: {error}") from None


def _save(contents: Mapping[str, bytes], comparison: Comparison, storage: Path, tell: Callable[[str], None]) -> None:
    """Keep both runs, each in the folder of its machine."""
    for content, each in zip(contents.values(), (comparison.old, comparison.new), strict=True):
        tell(f"saved {save_numbered(storage / each.machine, f'continuous_{each.commit[:9]}', content)}")
