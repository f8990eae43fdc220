"""What our own kernels for CPUs need before a case is timed: a variant for each class of shapes that the case has."""

import time
from collections.abc import Callable, Sequence

from bench.cases import Case
from bench.works.operations import OPERATIONS, operation
from bench.works.problems import build, layout_of, problems
from sparse_models.kernels import choice
from sparse_models.layers import LAYERS

PASSES, PAUSE = 4, 1.0  # through all cases, and seconds between them: what disturbs one has often passed at the next


def has_variants(case: Case) -> bool:
    """Tell whether the case's layer is multiplied by kernels whose variant is a matter of the machine."""
    return case.device == "cpu" and LAYERS[case.layer].has_variants


def as_tuned(case: Case) -> Case:
    """Return a case of only what decides which variants it needs, so that cases that need the same are one."""
    op = {"train": "training_step", "beside": "forward", "threshold": "forward"}.get(case.op, case.op)
    return case._replace(op=op, update="static", data="-", protocol="-", seed=0, regime="warm", distribution="-")


def call_once(case: Case) -> None:
    """Call once what is timed of a case."""
    if case.op in OPERATIONS:
        parts = problems(case, case.layer)
        layout = "batch-major" if case.op == "training_step" else layout_of(case, case.layer, "batch-major")
        operation(case.op, build(case.layer, parts), parts, layout)()


def tune(cases: Sequence[Case], call: Callable[[Case], None] = call_once) -> None:
    """Have the variants measured that cases of `as_tuned` need, where they are not known; again where that was disturbed."""
    for number in range(PASSES):
        time.sleep(PAUSE if number else 0.0)
        choice.retry()
        for case in cases:
            call(case)
        if not choice.disturbed:
            break
