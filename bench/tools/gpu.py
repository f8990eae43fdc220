"""All that a GPU is wanted for, in one go: the tests that need one, the default run, and what only a GPU runs.

Each part is a process of its own, whose output lies in a file; one that fails, or that takes too long, keeps no other from
running. Runs are saved as --benchmark-autosave does, those that are cut short with what they have measured.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch

from bench.hooks.values import positive
from bench.runs.locate import STORAGE
from sparse_models.errors import InputError
from sparse_models.kernels.contention import CORES

HELP = "run all that a GPU is wanted for, in one go"
SECONDS = 560.0  # where a card is lent for ten minutes, the rest of them is for the start and for what is copied
ENDING_SECONDS = 15.0  # from Ctrl-C until a run has saved what it has
OF_A_RUN = 0.7  # of a part's seconds, in which cases are measured; in the others it begins, sums up and saves
SHOWN = 12  # lines of a part that did not end well
ROOT = Path(__file__).parents[2]


class Part(NamedTuple):
    """What is run: a name, the seconds that it may take, and what pytest is given, for a run of the suite or for tests."""

    name: str
    seconds: float
    arguments: tuple[str, ...]
    is_run: bool = True

    def command(self, storage: Path) -> list[str]:
        """Return what is started, from the root of the checkout."""
        pytest = [sys.executable, "-m", "pytest"]
        if not self.is_run:
            shared = ["-n", f"{max(1, min(8, CORES // 2))}", "--dist", "worksteal"] if find_spec("xdist") else []
            return [*pytest, *self.arguments, *shared]
        options = ["--budget", f"{OF_A_RUN * self.seconds:g}", "--benchmark-autosave", f"--benchmark-storage={storage}"]
        return [*pytest, "bench", "--device", "cuda", *self.arguments, *options]


def _layers(*names: str, op: str, shape: str, sparsity: str, dtype: str) -> tuple[str, ...]:
    named = {"--layer": ",".join(names), "--op": op, "--shape": shape, "--sparsity": sparsity, "--dtype": dtype}
    return tuple(word for pair in named.items() for word in pair)


FEW, MANY = "4096x14336b16,4096x14336b256,4096x14336b4096", "4096x4096b4096,768x3072b2048"
# What needs a card; and no other folder is looked into, as what a test of tables imports may be missing where a card is lent.
TESTS = (*(f"tests/{folder}" for folder in ("engine", "machine", "sparse_models", "works")), "-q", "-m", "card", "--maxfail=40")
# The tests first, for what is wrong need not be timed; then what most is asked of, and of what never ran on a card a little.
PARTS = (
    Part("tests", 110, TESTS, is_run=False),
    Part("default", 245, ()),
    Part("blocks", 60, _layers("block16", "block64", op="forward,step", shape=MANY, sparsity="0.8,0.9", dtype="bfloat16")),
    Part("two_four", 45, _layers("two_four", op="forward", shape=FEW, sparsity="0.5", dtype="bfloat16")),
    Part("two_four_step", 30, _layers("two_four", "two_four_transposable", op="step", shape=MANY, sparsity="0.5",
                                      dtype="bfloat16")),
    Part("zeros", 35, (*_layers("input_skipping", op="forward", shape="4096x14336b1", sparsity="0,0.8", dtype="float32"),
                       "--zeros", "0,0.5,0.9")),
    Part("energy", 25, (*_layers("tiled", op="forward", shape="4096x14336b1", sparsity="0.5,0.8,0.9", dtype="bfloat16"),
                        "--energy")),
)  # fmt: skip


def add_arguments(tool: argparse.ArgumentParser) -> None:
    """Add the tool's options."""
    names = ",".join(part.name for part in PARTS)
    tool.add_argument("--parts", default=names, metavar="LIST", help=f"what is run; default: {names}")
    tool.add_argument("--seconds", default=SECONDS, metavar="N", help=f"for all parts together; default: {SECONDS:g}")
    tool.add_argument("--folder", type=Path, default=Path("gpu"), metavar="FOLDER", help="for their output; default: gpu")
    tool.add_argument("--storage", type=Path, default=Path(STORAGE), metavar="FOLDER", help=f"for runs; default: {STORAGE}")


def run(asked: argparse.Namespace, tell: Callable[[str], None]) -> int:
    """Run the parts; 1 where one of them did not end well."""
    by_name = {part.name: part for part in PARTS}
    names = [name.strip() for name in asked.parts.split(",")]
    for name in names:
        if name not in by_name:
            raise InputError(f"--parts: expected some of {', '.join(by_name)}, got {name!r}; check the spelling")
    if not torch.cuda.is_available():
        raise InputError("expected a GPU that PyTorch can use, got none; run this where `nvidia-smi` tells of one")
    parts, seconds = [by_name[name] for name in names], positive(str(asked.seconds))
    for told in (signal.SIGTERM, signal.SIGHUP):  # what is running does not hear of them, and must not outlive this process
        if signal.getsignal(told) is signal.SIG_DFL:
            signal.signal(told, signal.default_int_handler)
    return run_parts(parts, asked.folder, asked.storage, seconds, tell)


def run_parts(parts: Sequence[Part], folder: Path, storage: Path, seconds: float, tell: Callable[[str], None]) -> int:
    """Run parts one after the other, in so many seconds, each with its output in a file; 1 where one did not end well."""
    folder.mkdir(parents=True, exist_ok=True)
    end, ended = time.monotonic() + seconds, dict[str, str]()
    for part in parts:
        output, began = folder / f"{part.name}.txt", time.monotonic()
        left = min(part.seconds, end - began - ENDING_SECONDS)
        if left <= 0:
            ended[part.name] = "not begun, the time was over"
        else:
            tell(f"{part.name}: at most {left:.0f} s; its output is in {output}")
            ended[part.name] = _ended(part.command(storage.resolve()), output, left)
        tell(f"{part.name}: {ended[part.name]} ({time.monotonic() - began:.0f} s)")
        if ended[part.name] != "done" and left > 0:
            for line in output.read_text(encoding="utf-8", errors="replace").splitlines()[-SHOWN:]:
                tell(f"    {line}")
    failed = [name for name, how in ended.items() if how != "done"]
    tell(f"All {len(ended)} parts are done." if not failed else f"Not done: {', '.join(failed)}; the others are.")
    return 1 if failed else 0


def _ended(command: Sequence[str], output: Path, seconds: float) -> str:
    """Run a command for at most so many seconds, with its output in a file, and return how it ended."""
    with output.open("wb") as file:
        try:
            process = subprocess.Popen(  # noqa: S603  # our own
                command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT, start_new_session=True
            )
        except OSError as error:
            return f"could not be started: {error}"
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            return _cut_short(process)
        except KeyboardInterrupt:
            _cut_short(process)
            raise
    return "done" if code == 0 else f"ended with {code}"


def _cut_short(process: "subprocess.Popen[bytes]") -> str:
    """Have a process and what it started end, as by Ctrl-C, at which runs save what they have; or else at once."""
    try:
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, signal.SIGINT)
            process.wait(ENDING_SECONDS)
    finally:  # at a second Ctrl-C, too, and what it started and did not wait for
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS may not end what has ended
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return "cut short, it took too long"
