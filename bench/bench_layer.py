"""One layer or one MLP: forward, backward, and a whole step, against the dense reference of the same shape."""

from bench.cases import Case
from bench.engine.pairing import Racer
from bench.engine.rounds import time_round
from bench.engine.timed import REPLAYED_AS, precision_of
from bench.runs.row import Facts
from bench.shapes import Shape
from bench.works.gates import pass_gate
from bench.works.once_per_run import find_once
from bench.works.operations import operation
from bench.works.peak_memory import peak_bytes
from bench.works.problems import LAYOUTS, build, copies, layout_of, narrowed, problems
from bench.works.reference import dense_case, dense_reference, dense_works
from bench.works.replays import Work, captured
from bench.works.roofline import bounds, moved
from bench.works.tuning import as_gated, gate_once
from sparse_models.costs import Size, counted_flops, executed_flops, size
from sparse_models.layers import SparseLinear

OTHER_LAYOUT_CALLS = 5
to_prepare, prepare = as_gated, gate_once  # see bench.engine.preparing


def bench_forward(case: Case, race: Racer) -> Facts:
    """Inference: no graph is built."""
    return measure(case, race)


def bench_backward(case: Case, race: Racer) -> Facts:
    """The gradients of weights, biases and, for a single layer, of its input."""
    return measure(case, race)


def bench_step(case: Case, race: Racer) -> Facts:
    """Forward, backward and an Adam step."""
    return measure(case, race)


def bench_training_step(case: Case, race: Racer) -> Facts:
    """A whole step on labels: forward, cross-entropy, backward and Adam, fused where the layer has a way."""
    return measure(case, race)


def bench_training_forward(case: Case, race: Racer) -> Facts:
    """The forward pass of a step, with its graph."""
    return measure(case, race)


def bench_input_gradient(case: Case, race: Racer) -> Facts:
    """The input gradients of a step alone."""
    return measure(case, race)


def bench_weight_gradient(case: Case, race: Racer) -> Facts:
    """The gradients of weights and biases of a step alone."""
    return measure(case, race)


def bench_optimizer(case: Case, race: Racer) -> Facts:
    """The optimizer's part of a step alone: Adam on what the layer stores."""
    return measure(case, race)


def measure(case: Case, race: Racer) -> Facts:
    """Gate the case's layer, time it against dense, and return its facts."""
    reference = dense_reference(case)
    case, asked = (narrowed(case), case) if case.model == "narrow" else (case, case)
    # A training's samples are gathered from a data set, and come batch-major.
    layout = "batch-major" if case.op == "training_step" else layout_of(case, case.layer, reference.strides)
    pass_gate(case, case.layer, layout)
    parts = problems(case, case.layer)
    model = build(case.layer, parts)
    works: list[Work]
    if case.layer == "dense" and reference.layout not in LAYOUTS:  # the control is a clone of the reference
        works, model = dense_works(reference.layout, dense_case(case), is_clone=True)
    else:
        works = [operation(case.op, each, parts, layout) for each in copies(model, case, parts)]
    candidate, dense = works[0], reference.works[0]
    race(works, reference.works, case.device)

    def find_facts() -> Facts:
        peaks: Facts = {}
        if case.op == "step" and not race.once:  # apart from all timing
            peaks = {"peak_bytes": peak_bytes(candidate, case.device), "dense_peak_bytes": peak_bytes(dense, case.device)}
            other = operation(case.op, model, parts, next(each for each in LAYOUTS if each != layout))
            peaks["other_layout_cost"] = _fastest(other, case, race) / _fastest(candidate, case, race)
        layers, dense_layers, batch = list(model), list(reference.layers), Shape.parse(case.shape).batch
        computed, total = _computed_size(layers, case.op), size(layers)
        return {
            **total._asdict(),
            **peaks,
            **(bounds(layers[0], case.op, batch, case.threads) if len(layers) == 1 and not race.once else {}),
            **(moved(layers[0], case, batch) if len(layers) == 1 and not race.once else {}),
            "dense_bytes_stored": size(dense_layers).bytes_stored,
            "layout": layout,
            **reference.facts,
            "flops_counted": counted_flops(computed.nnz, batch, case.op),
            "flops_executed": executed_flops(layers, batch, case.op, input_gradient=len(layers) == 1),
            "dense_flops_counted": counted_flops(_computed_size(dense_layers, case.op).weights, batch, case.op),
            "dense_flops_executed": executed_flops(dense_layers, batch, case.op, input_gradient=len(layers) == 1),
        }

    return find_once(f"facts {asked}", find_facts)  # the same in every process


def _fastest(work: Work, case: Case, race: Racer) -> float:
    """Return the least seconds of a few calls, the first of which warms up, replayed where the case was."""
    with precision_of(case.dtype):
        if getattr(race, "facts", {}).get("launched") == REPLAYED_AS:
            work = captured([work])
        return min(time_round(work, 1, case.device).seconds for _ in range(OTHER_LAYOUT_CALLS + 1))


def _computed_size(layers: list[SparseLinear], op: str) -> Size:
    """Return the size of the layers that the operation computes: an MLP's first has no input gradient of its own."""
    return size(layers[1:] if op == "input_gradient" and len(layers) > 1 else layers)
