from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.cases import Case
from bench.findings.answer import answer_of
from bench.findings.step_split import add_splits, step_splits, update_steps
from bench.grids import PARTS
from bench.runs.row import Row
from bench.tables.answer import lines
from bench.works.operations import operation
from bench.works.problems import build, problems
from sparse_models.models import MLP
from tests.helpers.rows import WIDE, row
from tests.strategies import FLOAT64_LAYERS

STEP = Case("step", "sparse", "csr", "static", "8x8b4", 0.5, "cpu", "float32", 1)
times = st.lists(st.floats(1e-6, 1.0), min_size=5, max_size=5)


def timed(op: str, seconds: list[float], dense: list[float] | None = None, **fields: object) -> Row:
    """The row of a case with the seconds that each process measured."""
    return row(
        op=op, process_seconds=seconds, process_dense_seconds=dense or seconds, process_numbers=list(range(len(seconds))),
        process_speedups=[1.0] * len(seconds), **fields,
    )  # fmt: skip


def split(whole: list[float], *parts: list[float]) -> Row:
    rows = {STEP: timed("step", whole)} | {
        STEP._replace(op=part): timed(part, seconds) for part, seconds in zip(PARTS, parts, strict=True)
    }
    add_splits(rows)
    return rows[STEP]


@given(times, times, times, times, times)
def test_fractions_of_all_parts_and_the_rest_add_up_in_every_process(
    whole: list[float], a: list[float], b: list[float], c: list[float], d: list[float]
) -> None:
    for process in range(5):
        told = split([whole[process]], [a[process]], [b[process]], [c[process]], [d[process]])
        assert sum(told[f"{part}_fraction"] for part in (*PARTS, "unaccounted")) == pytest.approx(1)


def test_the_step_of_a_layer_without_zeros_is_its_own_and_not_the_control_that_keeps_every_weight() -> None:
    own: dict[str, Any] = {"layer": "block16", "sparsity": 0.0}
    rows = [
        timed("step", [took], model=model, **own) | {"seconds": took} for model, took in (("unpruned", 3.0), ("sparse", 2.0))
    ]
    [found] = step_splits([*rows, *(row(op=part, **own) for part in PARTS)])
    assert [one.seconds for one in found.splits] == [2.0]


def test_parts_that_make_up_the_whole_add_up() -> None:
    told = split([10.0, 11.0, 9.0], [4.0, 4.4, 3.6], [2.0, 2.3, 1.9], [3.0, 3.2, 2.5], [1.0, 1.2, 0.9])
    assert told["adds_up"] is True
    assert told["training_forward_fraction"] == pytest.approx(0.4)
    assert told["dense_adds_up"] is True


def test_what_is_missing_is_said() -> None:
    told = split([10.0] * 6, [3.0] * 6, [2.0] * 6, [3.0] * 6, [1.0] * 6)
    assert told["adds_up"] is False
    assert told["unaccounted_fraction"] == pytest.approx(0.1)


def test_a_step_without_all_its_parts_is_left_alone() -> None:
    rows = {STEP: timed("step", [1.0]), STEP._replace(op="optimizer"): timed("optimizer", [0.1])}
    add_splits(rows)
    assert "optimizer_fraction" not in rows[STEP]


def test_an_update_is_told_in_the_layers_own_steps() -> None:
    step = timed("step", [2.0, 4.0, 1.0])
    assert update_steps(step, [timed("update", [3.0, 6.0, 1.5], update="set")]) == {"set": (1.5, 1.5, 1.5)}


def test_the_table_tells_every_part_and_the_rest() -> None:
    rows = {STEP: timed("step", [10e-3] * 6) | {"seconds": 10e-3}} | {
        STEP._replace(op=part): timed(part, [2e-3] * 6) for part in PARTS
    }
    add_splits(rows)
    [line] = [
        line for line in lines(answer_of(list(rows.values())), WIDE) if line.strip().startswith("csr") and "10 ms" in line
    ]
    assert line.count("20% 1.00") == 4
    assert "20% [20% 20%]" in line


@pytest.mark.parametrize("layer", FLOAT64_LAYERS)
@pytest.mark.parametrize("shape", ["7x5b3", "7x6x5b3", "4x6x6x3b1"])
@pytest.mark.parametrize("layout", ["batch-major", "feature-major"])
def test_the_parts_of_a_step_compute_what_the_step_does(layer: str, shape: str, layout: str) -> None:
    case = Case("step", "sparse", layer, "static", shape, 0.5, "cpu", "float64", 1)
    parts = problems(case, layer)
    x, grad = parts[0].x.detach().requires_grad_(), parts[-1].output_grad
    model = build(layer, parts)
    layers = list(model)
    inside = x if len(layers) == 1 else layers[0](x)
    output = inside
    for number, following in enumerate(layers if len(layers) == 1 else layers[1:]):
        output = following(output if len(layers) == 1 and not number else torch.relu(output))
    [expected] = torch.autograd.grad(output, inside, grad, retain_graph=True)

    def result(op: str, of: MLP) -> Any:
        return operation(op, of, parts, layout)()

    frozen = build(layer, parts)
    [found] = result("input_gradient", frozen)
    torch.testing.assert_close(found, expected)
    # A layer of its own autograd computes what is asked of its inputs: weights must ask for nothing.
    assert not any(parameter.requires_grad for parameter in frozen.parameters())

    found_weights = result("weight_gradient", build(layer, parts))
    for own, part, found_one in zip(layers, parts, found_weights, strict=True):
        expected_one = torch.autograd.grad(own(part.x), list(own.parameters()), part.output_grad)
        torch.testing.assert_close(found_one, expected_one)

    stepped = build(layer, parts)
    result("optimizer", stepped)
    whole = build(layer, parts)
    result("step", whole)
    for one, other in zip(stepped.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)

    forward = result("training_forward", model)
    assert forward.requires_grad
    torch.testing.assert_close(forward, model(parts[0].x))


def test_parts_that_take_longer_than_the_whole_do_not_add_up() -> None:
    assert split([10.0] * 6, *[[4.0] * 6] * 4)["adds_up"] is False


def test_fractions_are_of_the_processes_that_measured_the_whole_and_every_part_and_denses_of_its_own() -> None:
    rows = {STEP: timed("step", [10.0, 10.0], [20.0, 20.0])}
    rows |= {STEP._replace(op=part): timed(part, [2.0, 2.0], [1.0, 1.0]) for part in PARTS}
    rows[STEP._replace(op=PARTS[0])] |= {"process_numbers": [1, 2]}
    add_splits(rows)
    assert rows[STEP]["optimizer_fraction"] == pytest.approx(0.2)
    assert rows[STEP]["dense_optimizer_fraction"] == pytest.approx(0.05)


def test_a_split_is_of_one_layer_at_one_sparsity_at_one_place() -> None:
    rows = [
        row(op=op, sparsity=sparsity, threads=threads, seconds=sparsity * threads, process_seconds=[1.0])
        for threads in (1, 2)
        for sparsity in (0.5, 0.9)
        for op in ("step", "optimizer")
    ]
    found = step_splits([*rows, row(op="update", update="set", threads=2, process_seconds=[1.0])])
    assert [(one.place.threads, one.parts, one.rules) for one in found] == [(1, ["optimizer"], []), (2, ["optimizer"], ["set"])]
    assert [[split.seconds for split in one.splits] for one in found] == [[0.5, 0.9], [1.0, 1.8]]
