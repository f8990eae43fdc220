"""What a case is timed against: dense in the variant in which it is fastest, and gated."""

from collections.abc import Callable
from typing import Any, NamedTuple

from bench.cases import Case
from bench.works.compiled import COMPILED, compiled_step
from bench.works.gates import pass_gate
from bench.works.once_per_run import KNOWN
from bench.works.operations import operation
from bench.works.problems import LAYOUTS, build, problems
from sparse_models.models import MLP

REFERENCE_OPS = {"beside": "forward", "update": "step"}  # what dense does meanwhile, where it is not the case's own operation


def dense_case(case: Case) -> Case:
    """Return the case of the dense reference: what dense does beside the case, in the case's regime."""
    op = REFERENCE_OPS.get(case.op, case.op)
    return case._replace(op=op, model="dense", layer="dense", update="static", sparsity=0.0, skew=0.0)


def variant_key(reference: Case) -> str:
    """Return by what name a process knows the variant in which a dense reference is fastest."""
    return f"fastest variant {reference}"


class Reference(NamedTuple):
    """What a case is timed against: dense at its best."""

    work: Callable[[], object]
    layers: MLP
    layout: str  # or COMPILED
    gain: float  # the first layout's time over this one's, as the search for the fastest found it

    @property
    def facts(self) -> dict[str, Any]:
        """What the row says of it."""
        return {"dense_layout": self.layout, "dense_layout_gain": self.gain}


def dense_reference(case: Case) -> Reference:
    """Return the dense layers of the case's shape at the reference's operation, gated, in their fastest variant.

    It is what `bench.engine.reference_search` found; without a run's search, as where every body is run once, it is the first
    of the layouts.
    """
    reference = dense_case(case)
    variant, gain = KNOWN.get(variant_key(reference), (LAYOUTS[0], 1.0))
    pass_gate(reference, "dense", LAYOUTS[0] if variant == COMPILED else variant)
    return Reference(*dense_work(variant, reference), variant, gain)


def dense_work(variant: str, reference: Case) -> tuple[Callable[[], object], MLP]:
    """Return the operation of a dense reference in one of the variants there are, and its layers."""
    if variant == COMPILED:
        return compiled_step(reference.shape, reference.device, reference.dtype, reference.threads)
    parts = problems(reference, "dense")
    model = build("dense", parts)
    return operation(reference.op, model, parts, variant), model
