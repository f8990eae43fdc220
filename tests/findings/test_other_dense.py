"""How a layer fares against dense in ways that need no zeros: a lower precision than its own, and kernels of ours."""

from typing import Any

import pytest

from bench.findings.other_dense import other_dense
from tests.helpers.rows import row


def one(dtype: str, seconds: float, dense_seconds: float, **fields: Any) -> dict[str, Any]:
    """A row whose eight processes all say the same."""
    numbers = list(range(8))
    times = {"process_seconds": [seconds] * 8, "process_dense_seconds": [dense_seconds] * 8}
    return row(dtype=dtype, process_numbers=numbers, **times, **fields)


DENSE: dict[str, Any] = {"model": "dense", "layer": "dense", "sparsity": 0.0}


def test_each_layer_is_held_against_dense_in_fewer_bits() -> None:
    rows = [
        one("float32", 4.0, 4.0, **DENSE),
        one("float32", 1.0, 4.0, sparsity=0.9),
        one("tf32", 2.0, 2.0, **DENSE),
        one("bfloat16", 0.5, 0.5, **DENSE),
        one("bfloat16", 0.25, 0.5, sparsity=0.9),
    ]
    [found] = other_dense(rows)
    assert found.place.dtype == "float32"
    assert [(op, name, gain.median) for op, name, gain in found.dense] == [
        ("forward", "dense tf32", 2.0),
        ("forward", "dense bfloat16", 8.0),
    ]
    told = [(against.layer, against.other, against.points[0.9].median) for against in found.layers]
    assert told == [("csr", "dense tf32", 2.0), ("csr", "dense bfloat16", 0.5)]


def test_each_layer_is_held_against_kernels_that_keep_every_weight() -> None:
    rows = [
        one("float32", 4.0, 4.0, **DENSE),
        one("float32", 1.0, 4.0, sparsity=0.9),
        one("float32", 2.0, 4.0, model="unpruned", layer="unpruned block16", sparsity=0.0, speedup=1.9),
        one("float32", 0.1, 4.0, model="unpruned", layer="unpruned block16", sparsity=0.0, op="step"),
    ]
    [found] = other_dense(rows)
    assert found.sparsities == [0.9]
    # Over dense at its best as its own row tells it, of pairs, and in every operation that has one.
    gains = [("forward", "unpruned block16", 1.9), ("step", "unpruned block16", 1.0)]
    assert [(op, name, gain.median) for op, name, gain in found.dense] == gains
    assert [(each.op, each.layer, each.other, each.points[0.9].median) for each in found.layers] == [
        ("forward", "csr", "unpruned block16", 2.0)
    ]


def test_kernels_that_keep_every_weight_are_told_of_where_nothing_else_was_measured() -> None:
    [found] = other_dense([one("float32", 2.0, 4.0, model="unpruned", layer="unpruned block16", sparsity=0.0, speedup=1.9)])
    assert [(op, name, gain.median) for op, name, gain in found.dense] == [("forward", "unpruned block16", 1.9)]
    assert not found.layers


def test_other_places_operations_and_higher_precisions_are_no_rivals() -> None:
    own = one("float32", 1.0, 4.0, sparsity=0.9)
    others: list[dict[str, Any]] = [{"regime": "cold"}, {"op": "step"}, {"shape": "9x9"}, {"skew": 0.5}, {"device": "cuda"}]
    for other in others:
        assert other_dense([own, one("bfloat16", 1.0, 1.0, **DENSE | other)]) == []
    assert other_dense([own, one("float64", 1.0, 1.0, **DENSE), one("float32", 1.0, 1.0, **DENSE)]) == []


def test_only_processes_that_measured_both_tell() -> None:
    own = one("float32", 1.0, 4.0, sparsity=0.9)
    rival = one("tf32", 2.0, 2.0, **DENSE) | {"process_numbers": list(range(6, 14))}
    [found] = other_dense([own, rival])
    assert found.layers[0].points[0.9].median == pytest.approx(2.0)
    assert other_dense([own, rival | {"process_numbers": list(range(8, 16))}]) == []
