"""Which variant of our own kernels is fastest on this machine: measured anew, shown, and kept for all who use them.

They measure it themselves when they are first used for a class of shapes; this shows what was tried and what it gave.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator

import torch

from bench import grids
from bench.cases import Case
from bench.hooks.values import threads
from bench.shapes import Shape
from bench.tables.tuning import lines
from bench.works.tuning import tune
from sparse_models.errors import InputError
from sparse_models.kernels import choice, kept_choices
from sparse_models.masks import check_sparsity

HELP = "measure which variant of our own kernels suits this machine"
SHAPES = (*grids.SHAPES, *grids.TRAINING_SHAPES)
LAYER = "tiled"


def add_arguments(tool: argparse.ArgumentParser) -> None:
    """Add the tool's options."""
    shapes, levels = ",".join(SHAPES), ",".join(map(str, grids.SPARSITIES))
    tool.add_argument("--shape", default=shapes, metavar="LIST", help=f"sizes and batch; default: {shapes}")
    tool.add_argument("--sparsity", default=levels, metavar="LIST", help=f"as of pytest bench; default: {levels}")
    tool.add_argument("--threads", metavar="N", help="CPU threads; default: PyTorch's own")


def run(asked: argparse.Namespace, tell: Callable[[str], None]) -> int:
    """Measure and print; 1 where something else kept the machine too busy for some of it."""
    fixed = os.environ.get(choice.ASKED, "")
    if fixed not in ("", "measured"):
        raise InputError(f"{choice.ASKED}: expected it to be unset, for variants to be measured, got {fixed!r}; unset it")
    wanted = list(cases(asked.shape, asked.sparsity, threads(asked.threads)))
    tell(f"measuring anew for {len(wanted)} cases; whatever else runs meanwhile disturbs it")
    began = time.perf_counter()
    torch.set_num_threads(wanted[0].threads)
    choice.anew()
    tune(wanted)
    for line in lines(choice.in_use(), sorted(choice.disturbed), time.perf_counter() - began):
        tell(line)
    tell(f"kept in {kept_choices.path()}")
    return 1 if choice.disturbed else 0


def cases(shapes: str, sparsities: str, threads: int) -> Iterator[Case]:
    """Yield the cases that need what is asked for: a network's whole step, a layer's step, or one sample through a layer."""
    for text in shapes.split(","):
        shape = Shape.parse(text.strip())
        op = "training_step" if len(shape.sizes) > 2 else "forward" if shape.batch == 1 else "step"
        for sparsity in map(check_sparsity, sparsities.split(",")):  # type: ignore[arg-type]  # takes text as well
            yield Case(op, "sparse", LAYER, "static", str(shape), sparsity, "cpu", "float32", threads)
