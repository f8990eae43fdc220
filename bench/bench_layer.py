"""One layer or one MLP: forward, backward, and a whole step, against the dense reference of the same shape."""

from typing import Any

from bench.cases import Case, Shape
from bench.pairing import race
from bench.row import row_of
from bench.workbench import build, dense_reference, layout_of, operation, pass_gate, problems
from sparse_models.costs import counted_flops, executed_flops, size
from sparse_models.registry import LAYERS


def bench_forward(case: Case, benchmark: Any, record: Any) -> None:
    """Inference: no graph is built."""
    measure(case, benchmark, record)


def bench_backward(case: Case, benchmark: Any, record: Any) -> None:
    """The gradients of weights, biases and, for a single layer, of its input."""
    measure(case, benchmark, record)


def bench_step(case: Case, benchmark: Any, record: Any) -> None:
    """Forward, backward and an Adam step."""
    measure(case, benchmark, record)


def measure(case: Case, benchmark: Any, record: Any) -> None:
    """Gate the case's layer, time it against dense, and record the row."""
    benchmark.group = f"{case.op} {case.shape}"
    dense, dense_layout = dense_reference(case, case.op)
    layout = layout_of(LAYERS[case.layer], dense_layout)
    pass_gate(case, case.layer, layout)
    parts = problems(case, case.layer)
    model = build(case.layer, parts)
    pairs = race(benchmark, operation(case.op, model, parts, layout), dense, case.device)
    if pairs is None:
        return
    layers, batch = list(model), Shape.parse(case.shape).batch
    dense_layers = list(build("dense", problems(case, "dense")))
    total = size(layers)
    record(
        row_of(
            case,
            pairs,
            total,
            layout=layout,
            dense_layout=dense_layout,
            flops_counted=counted_flops(total.nnz, batch, case.op),
            flops_executed=executed_flops(layers, batch, case.op, input_gradient=len(layers) == 1),
            dense_flops_counted=counted_flops(total.weights, batch, case.op),
            dense_flops_executed=executed_flops(dense_layers, batch, case.op, input_gradient=len(layers) == 1),
        )
    )
