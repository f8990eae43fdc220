"""Patterns are held against one another at equal sparsity, by the processes that measured both."""

import json
from typing import Any

import pytest

from bench.findings.answer import answer_of
from bench.findings.speedups import Best, patterns
from bench.runs.compact import rows_of
from tests.helpers.in_process import ROOT
from tests.helpers.rows import row

pytestmark = pytest.mark.usefixtures("blocks")

MEASURED = 8  # processes


def measured(level: float, layer: str, **fields: Any) -> dict[str, Any]:
    """A row of processes that have this speed-up, each in a moment in which all ran at another speed."""
    speedups = [level * (1 + number / 10) for number in range(MEASURED)]
    return row(
        layer=layer, process_speedups=speedups, process_numbers=list(range(MEASURED)), speedup=level, speedup_low=level / 2,
        speedup_high=level * 2, **{"sparsity": 0.8} | fields,
    )  # fmt: skip


def test_a_patterns_fastest_layer_stands_beside_the_fastest_unstructured_one() -> None:
    rows = [measured(2.0, "csr"), measured(3.0, "tiled"), measured(6.0, "blocks"), measured(1.0, "slow_blocks")]
    [found] = patterns(rows)
    told = {pattern: points[0.8] for _, pattern, points in found.patterns}
    assert {pattern: best.layer for pattern, best in told.items()} == {"unstructured": "tiled", "4x4 blocks": "blocks"}
    assert told["4x4 blocks"].told.speedup.median == 6.0
    assert told["4x4 blocks"].against_unstructured == pytest.approx((2.0, 2.0, 2.0))  # whatever disturbed both alike
    assert told["unstructured"].against_unstructured is None


def test_only_what_is_at_equal_sparsity_of_one_operation_at_one_place_is_compared() -> None:
    assert patterns([measured(2.0, "csr"), measured(3.0, "tiled")]) == []
    assert patterns([measured(2.0, "csr"), measured(3.0, "blocks", sparsity=0.9)]) == []
    assert patterns([measured(2.0, "csr"), measured(3.0, "blocks", op="step")]) == []
    assert patterns([measured(2.0, "csr"), measured(3.0, "blocks", threads=1)]) == []
    at = [("forward", 0.5, 2.0), ("forward", 0.9, 4.0), ("step", 0.9, 8.0)]
    rows = [measured(level, layer, op=op, sparsity=sparsity) for op, sparsity, level in at for layer in ("csr", "blocks")]
    [found] = patterns([*rows, measured(2.0, "csr", sparsity=0.99)])
    assert found.sparsities == [0.5, 0.9]
    told = {(op, pattern): points for op, pattern, points in found.patterns}
    assert {key: list(points) for key, points in told.items() if key[0] == "forward"} == {
        ("forward", "unstructured"): [0.5, 0.9],
        ("forward", "4x4 blocks"): [0.5, 0.9],
    }
    ratios = [
        best.against_unstructured
        for (_, pattern), points in told.items()
        if pattern == "4x4 blocks"
        for best in points.values()
    ]
    assert ratios == [(1.0, 1.0, 1.0)] * 3


def test_without_an_unstructured_layer_dense_alone_is_what_patterns_are_held_against() -> None:
    [found] = patterns([measured(2.0, "blocks"), measured(3.0, "gone")])
    best: list[Best] = [points[0.8] for _, _, points in found.patterns]
    assert [one.against_unstructured for one in best] == [None, None]
    assert [pattern for _, pattern, _ in found.patterns] == ["4x4 blocks", "-"]


def test_a_saved_run_is_told_of_where_layers_of_it_are_gone() -> None:
    [path, *_] = sorted(ROOT.glob(".benchmarks/znver5*/0004*.json"))
    saved = json.loads(path.read_text())
    rows = rows_of(saved["rows"], saved["process_figures"], [one["extra_info"] for one in saved["benchmarks"]])
    rows = [one | {"zeros": 0.0} for one in rows]
    gone = [one | {"layer": "gone"} if one["layer"] == "csr" else one for one in rows]
    gone += [
        one | {"layer": "gone", "speedup": one["speedup"] / 2}
        for one in rows
        if one["op"] == "train" and one["layer"] == "tiled"
    ]
    assert "-" in {
        pattern for found in patterns([one for one in gone if one["op"] == "step"]) for _, pattern, _ in found.patterns
    }
    found = answer_of([one | {"gflops": 1.0, "realised_fraction": None, "effective_sparsity": 0.0} for one in gone])
    assert found.patterns
    assert [{one.pattern for one in each.shown} for each in found.advice] == [{"unstructured", "-", "narrow dense"}]
