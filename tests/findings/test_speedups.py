"""Which rows each finding is made from."""

from typing import Any

from bench.findings.answer import answer_of
from bench.findings.speedups import realised, speed_ups
from tests.helpers.rows import row

DENSE: dict[str, Any] = {"model": "dense", "layer": "dense", "sparsity": 0.0}
BOUNDED = {"tile_bytes": 2**17, "bound_gflops": 200.0, "bound_fraction": 0.8}


def test_verdicts_are_of_all_speed_ups_over_dense_where_a_whole_operation_was_measured() -> None:
    rows = [row(), row(op="optimizer", verdict="faster"), row(op="beside", verdict="slower"), row(op="update")]
    found = answer_of(rows).verdicts
    assert found is not None
    assert (found.counts, found.cases) == ({"undecided": 1, "faster": 1, "slower": 1}, 3)
    assert answer_of(rows[1:]).verdicts is None


def test_parts_of_a_step_have_their_roofline_and_no_realised_fraction() -> None:
    found = answer_of([row(), row(op="input_gradient", **BOUNDED)])
    assert [one.op for one in found.rooflines] == ["input_gradient"]
    assert [one.op for one in found.realised] == ["forward"]


def test_dense_is_shown_where_nothing_else_was_measured() -> None:
    assert [curve.layer for curve in speed_ups([row(**DENSE)])[0].curves] == ["dense"]
    [both] = speed_ups([row(**DENSE), row()])
    assert [curve.layer for curve in both.curves] == ["csr"]
    assert (both.sparsities, len(both.controls)) == ([0.5], 1)


def test_dense_that_is_but_a_rival_has_no_table_of_its_own() -> None:
    found = speed_ups([row(**DENSE), row(), row(**DENSE | {"dtype": "tf32"})])
    assert [one.place.dtype for one in found] == ["float32"]


def test_what_no_graph_holds_is_named() -> None:
    [found] = speed_ups([row(op="step", not_captured="it waits"), row(op="step", sparsity=0.9, not_captured="it waits"), row()])
    assert found.launched == ["step csr"]


def test_one_sparsity_has_no_break_even() -> None:
    [[one], [two]] = ([*speed_ups(rows)[0].curves] for rows in ([row()], [row(), row(sparsity=0.9)]))
    assert one.break_even == ""
    assert two.break_even


def test_the_realised_fraction_is_told_layer_by_layer_where_it_is_known() -> None:
    unknown = row(sparsity=0.9, realised_fraction=None)
    found = realised([row(**DENSE), row(), unknown, row(layer="tiled", realised_fraction=0.25)])
    assert [(one.layer, one.points) for one in found] == [("csr", {0.5: 0.5}), ("tiled", {0.5: 0.25})]
