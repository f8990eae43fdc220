"""What our own kernels for CPUs need before a case is timed: a variant for each class of shapes that the case has."""

import time
from collections.abc import Callable, Sequence

from bench.cases import Case
from bench.grids import OF_A_MODEL
from bench.works.operations import OPERATIONS, operation
from bench.works.problems import build, layout_of, problems
from bench.works.whole_models import chosen_masks, example_of, model_work, sparsified
from sparse_models.kernels import choice
from sparse_models.layers import LAYERS

PASSES, PAUSE = 4, 1.0  # through all cases, and seconds between them: what disturbs one has often passed at the next


def has_variants(case: Case) -> bool:
    """Tell whether the case's layer is multiplied by kernels whose variant is a matter of the machine."""
    return case.device == "cpu" and LAYERS[case.layer].has_variants


def as_tuned(case: Case) -> Case:
    """Return a case of only what decides which variants it needs, so that cases that need the same are one."""
    if case.op in OF_A_MODEL:  # whose masks its data and its distribution are
        return case._replace(regime="warm")
    op = {"train": "training_step", "beside": "forward", "threshold": "forward"}.get(case.op, case.op)
    return case._replace(op=op, update="static", data="-", protocol="-", seed=0, regime="warm", distribution="-")


def call_once(case: Case) -> None:
    """Call once what is timed of a case."""
    if case.op in OF_A_MODEL:
        example = example_of(case)
        sparsified(example.module, chosen_masks(case, example.module), case.layer)
        model_work(case.op, example)()
    if case.op in OPERATIONS:
        parts = problems(case, case.layer)
        layout = "batch-major" if case.op == "training_step" else layout_of(case, case.layer, "batch-major")
        operation(case.op, build(case.layer, parts), parts, layout)()


def tune(cases: Sequence[Case], call: Callable[[Case], None] = call_once) -> None:
    """Have the variants measured that cases of `as_tuned` need, where they are not known; again where that was disturbed."""

    def call_all() -> None:
        for case in cases:
            call(case)

    until_undisturbed(call_all)


def until_undisturbed(call: Callable[[], object]) -> None:
    """Call what measures the variants that it needs, and again where another process disturbed that."""
    for number in range(PASSES):
        time.sleep(PAUSE if number else 0.0)
        choice.retry()
        call()
        if not choice.disturbed:
            break
