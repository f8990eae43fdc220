"""What sparsity costs beside time."""

from typing import Any

from bench.findings.answer import answer_of
from bench.findings.costs import memories, update_costs
from bench.tables.answer import lines
from tests.helpers.rows import row

STEP: dict[str, Any] = {"op": "step", "peak_bytes": 2**20, "dense_peak_bytes": 2**22, "other_layout_cost": 1.25}
DENSE: dict[str, Any] = STEP | {"model": "dense", "layer": "dense", "sparsity": 0.0}


def test_dense_stands_beside_the_layers_and_not_among_them() -> None:
    [found] = memories([row(**DENSE), row(**STEP)])
    assert (list(found.layers), found.sparsities) == (["csr"], [0.5])
    assert found.dense == (300, 2**20)


def test_a_peak_is_in_bytes_also_beside_a_dense_that_takes_none() -> None:
    rows = [row(**STEP | {"dense_peak_bytes": 0})]
    assert memories(rows)[0].layers["csr"][0.5] == (0.25, 2**20, 1.25)
    assert "0.25 stored, 1 MiB peak, 1.25 time" in "\n".join(lines(answer_of(rows)))


def test_updates_are_told_by_rule_and_layer() -> None:
    both = [(rule, layer) for rule in ("set", "rigl") for layer in ("csr", "tiled")]
    [found] = update_costs([row(op="update", update=rule, layer=layer) for rule, layer in both])
    assert [(one.rule, one.layer) for one in found.costs] == both
