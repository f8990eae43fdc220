"""What this machine can resolve: works against their own clones, with and without a planted slowdown of known size.

The engine that measures the suite is asked questions whose answers are known. Identical code must not be called different, a
planted slowdown must be found, and the intervals must hold the true ratio as often as they say. A slowdown of 10 % is eleven
calls where the reference makes ten: real work of the same kind, and a true ratio of exactly 10/11.
"""

import itertools
import statistics
from collections.abc import Callable
from fractions import Fraction

from bench.cases import Case
from bench.engine.jobs import Job
from bench.engine.pairing import Racer
from bench.engine.rounds import time_round
from bench.runs.row import Facts
from bench.works.gates import pass_gate
from bench.works.operations import operation
from bench.works.problems import build, layout_of, problems
from sparse_models.layers import LAYERS

# Works of .02 to .4 ms, so that even ten or twenty calls, which it takes to plant 10 or 5 %, are a round of a few milliseconds.
# Percent of extra work planted; identical code most often, for its rate of false alarms is the smallest to be told.
PLANTED = (0, 0, 0, 0, 5, 10, 20)
OPERATIONS, SHAPES, LAYER_NAMES, SPARSITY = (
    ("forward", "backward", "step"),
    ("128x128b128", "256x256b64", "512x512b1"),
    ("dense", "csr"),
    0.9,
)


def jobs_of(device: str, threads: int) -> list[Job]:
    """Return the comparisons of one run."""
    jobs = []
    for op, shape, layer, (number, planted) in itertools.product(OPERATIONS, SHAPES, LAYER_NAMES, enumerate(PLANTED)):
        sparsity = LAYERS[layer].pattern.nearest(SPARSITY)
        # A case has no field for what is planted; `data`, which only trainings use, says it.
        case = Case(op, "sparse", layer, "static", shape, sparsity, device, "float32", threads, data=str(planted), seed=number)
        jobs.append(Job(f"{op} {layer} {shape} {sparsity:g} #{number}", __name__, clone_race.__name__, case))
    return jobs


def clone_race(case: Case, race: Racer) -> Facts:
    """Time a work with planted extra calls against its clone without."""
    layout = layout_of(case, case.layer, "batch-major")
    pass_gate(case, case.layer, layout)
    parts = problems(case, case.layer)
    works = [operation(case.op, build(case.layer, parts), parts, layout) for _ in range(2)]
    ratio = 1 + Fraction(int(case.data), 100)
    race(_repeated(works[0], ratio.numerator), _repeated(works[1], ratio.denominator), case.device)
    return {}


def _repeated(work: Callable[[], object], calls: int) -> Callable[[], object]:
    def repeat() -> None:
        for _ in range(calls):
            work()

    return repeat


def call_overhead() -> float:
    """Return the seconds that the engine's own loop and clock add to each call of a round."""
    return statistics.median(time_round(lambda: None, 1000, "cpu").seconds for _ in range(101))
