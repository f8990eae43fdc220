"""What our own kernels need before a case is timed: a variant or plan for each class of shapes, and on GPUs code and gates."""

import time
from collections.abc import Callable, Sequence

from bench.cases import Case
from bench.grids import OF_A_MODEL, is_gpu, stored
from bench.works.gates import pass_gate
from bench.works.operations import OPERATIONS, operation
from bench.works.problems import LAYOUTS, build, layout_of, problems
from bench.works.whole_models import chosen_masks, example_of, model_work, sparsified
from sparse_models.kernels import choice
from sparse_models.layers import LAYERS

PASSES, PAUSE = 4, 1.0  # through all cases, and seconds between them: what disturbs one has often passed at the next


def has_variants(case: Case) -> bool:
    """Tell whether the case's layer is multiplied by kernels whose variant is a matter of the machine."""
    return LAYERS[case.layer].has_variants


def as_tuned(case: Case) -> Case:
    """Return a case of only what decides which variants it needs, so that cases that need the same are one."""
    if case.op in OF_A_MODEL:  # whose masks its data and its distribution are
        return case._replace(regime="warm")
    op = {"train": "training_step", "beside": "forward", "threshold": "forward"}.get(case.op, case.op)
    if is_gpu(case.device) and op in OPERATIONS and op not in ("forward", "training_step"):
        op = "step"  # whose products are those of its parts: on a CPU some are fused
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


def as_gated(case: Case) -> list[Case]:
    """Return what a case on a GPU has gated, dense and its layer, as cases of only what decides how; on a CPU nothing.

    A CPU's kernels are compiled as their variants are measured; a GPU's take seconds each.
    """
    if not is_gpu(case.device):
        return []
    op = {"forward": "forward", "beside": "forward", "training_step": "training_step"}.get(case.op, "step")
    own = as_tuned(case)._replace(op=op, dtype=stored(case.dtype))
    dense = own._replace(model="dense", layer="dense", sparsity=0.0, skew=0.0)
    return [dense, own] if case.model == "sparse" else [dense]


def gate_once(case: Case) -> None:
    """Pass the gates of a case of `as_gated`, whichever layout its dense reference will have, and compile what it runs."""
    layouts = {"batch-major"} if case.op == "training_step" else {layout_of(case, case.layer, each) for each in LAYOUTS}
    for layout in sorted(layouts):
        pass_gate(case, case.layer, layout)
    call_once(case)
