"""The layer's product and one of PyTorch's in turns, against as many of each by themselves.

It is 1 where neither disturbs the other. A second pool of threads would be seen here: two pools that fight for the cores were
up to 20 times as slow.
"""

from bench.cases import Case
from bench.engine.pairing import Racer
from bench.runs.row import Facts
from bench.shapes import Shape
from bench.works.gates import pass_gate
from bench.works.operations import operation
from bench.works.problems import build, layout_of, problems
from bench.works.reference import dense_reference
from sparse_models.costs import counted_flops, executed_flops, size

TURNS = 8


def bench_beside(case: Case, race: Racer) -> Facts:
    """Forward passes of the layer and of dense: one after the other in turns, or all of the one before all of the other."""
    reference = dense_reference(case)
    dense, layout = reference.works[0], layout_of(case, case.layer, reference.strides)
    pass_gate(case, case.layer, layout)
    parts = problems(case, case.layer)
    model = build(case.layer, parts)
    own = operation("forward", model, parts, layout)

    def in_turns() -> None:
        for _ in range(TURNS):
            own()
            dense()

    def apart() -> None:
        for work in (own, dense):
            for _ in range(TURNS):
                work()

    race(in_turns, apart, case.device)
    total, batch = size(model), Shape.parse(case.shape).batch
    counted = TURNS * (counted_flops(total.nnz, batch, "forward") + counted_flops(total.weights, batch, "forward"))
    executed = TURNS * sum(executed_flops(list(layers), batch, "forward") for layers in (model, reference.layers))
    return {
        **total._asdict(),
        "layout": layout,
        **reference.facts,
        "flops_counted": counted,
        "flops_executed": executed,
        "dense_flops_counted": counted,
        "dense_flops_executed": executed,
    }
