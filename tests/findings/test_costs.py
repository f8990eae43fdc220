"""What sparsity costs beside time."""

from typing import Any

import pytest

from bench.findings.answer import answer_of
from bench.findings.costs import bandwidths, energies, memories, pruned, rooflines, update_costs
from bench.tables.answer import lines
from tests.helpers.rows import WIDE, row

STEP: dict[str, Any] = {"op": "step", "peak_bytes": 2**20, "dense_peak_bytes": 2**22, "other_layout_cost": 1.25}
DENSE: dict[str, Any] = STEP | {"model": "dense", "layer": "dense", "sparsity": 0.0}


def test_dense_stands_beside_the_layers_and_not_among_them() -> None:
    [found] = memories([row(**DENSE), row(**STEP)])
    assert (list(found.layers), found.sparsities) == (["csr"], [0.5])
    assert found.dense == (300, 2**20)


def test_a_peak_is_in_bytes_also_beside_a_dense_that_takes_none() -> None:
    rows = [row(**STEP | {"dense_peak_bytes": 0})]
    assert memories(rows)[0].layers["csr"][0.5] == (0.25, 2**20, 1.25)
    assert "peak           1 MiB" in "\n".join(lines(answer_of(rows)))


def test_updates_are_told_by_rule_and_layer() -> None:
    both = [(rule, layer) for rule in ("set", "rigl") for layer in ("csr", "tiled")]
    [found] = update_costs([row(op="update", update=rule, layer=layer) for rule, layer in both])
    assert [(one.rule, one.layer) for one in found.costs] == both


COLD = {"regime": "graph-cold", "bytes_moved": 4e6, "bound_gb_per_s": 4000.0}
DENSE_FIELDS = {"model": "dense", "layer": "dense", "sparsity": 0.0}


def test_bytes_moved_are_told_by_the_second_where_a_layer_was_measured() -> None:
    [found] = bandwidths([row(**COLD, seconds=2e-6), row(**COLD | DENSE_FIELDS, seconds=1e-6), row()])
    assert found.layers == {"csr": {0.5: pytest.approx(2000)}}
    assert found.bound_gb_per_s == 4000.0
    assert found.dense_gb_per_s == pytest.approx(4000)
    assert bandwidths([row(**COLD | DENSE_FIELDS)]) == []


def test_what_a_kernel_exceeds_is_no_bound_of_its_tile() -> None:
    bounded = {"tile_bytes": 2**17, "bound_gflops": 200.0, "bound_fraction": 0.8, "gflops": 160.0, "layer": "tiled"}
    [found] = rooflines([row(**bounded)])
    assert found.points == {0.5: (160.0, 0.8, 200.0)}
    for exceeded in ({"bound_fraction": 1.84}, {"bound_fraction": None}):  # as older runs tell it, and as rows tell it now
        beyond = {name: value for name, value in (bounded | exceeded | {"sparsity": 0.9}).items() if value is not None}
        assert rooflines([row(**bounded), row(**beyond)]) == []
        [found] = rooflines([row(**bounded), row(**beyond | {"tile_bytes": 2**15})])
        assert list(found.points) == [0.5]


def test_each_sparsity_has_the_bound_of_its_own_tile() -> None:
    small = {"tile_bytes": 2**15, "bound_gflops": 220.0, "bound_fraction": 0.7, "layer": "tiled"}
    [found] = rooflines([row(**small), row(**small | {"tile_bytes": 2**16, "bound_gflops": 120.0}, sparsity=0.9)])
    assert [one.bound_gflops for one in found.points.values()] == [220.0, 120.0]


def test_what_a_layer_exceeds_is_no_bound_of_memory() -> None:
    dense = row(**COLD | DENSE_FIELDS, seconds=1e-6)
    assert bandwidths([row(**COLD, seconds=0.5e-6), dense]) == []
    [within] = bandwidths([row(**COLD, seconds=0.98e-6), dense])
    assert within.bound_gb_per_s == pytest.approx(within.layers["csr"][0.5])


def test_joules_are_told_as_a_fraction_of_denses_where_both_are_known() -> None:
    [found] = energies([row(joules=1.0, dense_joules=4.0), row(op="step", joules=1.0), row()])
    assert found.dense == {"forward": 4.0}
    assert found.layers == [("forward", "csr", {0.5: 0.25})]


CUT: dict[str, Any] = {"op": "pruned", "data": "digits-mlp", "layer": "tiled", "tuning_epochs": 10, "sparsity": 0.9,
                       "dense_accuracies": [0.9, 0.8, 1.0], "pruned_accuracies": [0.5, 0.4, 0.3],
                       "tuned_accuracies": [0.75, 0.7, 0.8]}  # fmt: skip


def test_a_pruned_network_is_told_in_one_row_with_each_accuracy_and_the_speed_at_each_batch() -> None:
    one = {"batch": 1, "speedup": 0.5, "speedup_low": 0.4, "speedup_high": 0.6, "verdict": "slower"}
    rows = [row(**CUT, batch=64), row(**CUT | one, bytes_stored=200), row(**CUT | {"data": "digits-conv"}, batch=64)]
    [found] = pruned(rows)
    assert (found.seeds, found.tuning_epochs, found.batches) == (3, 10, [1, 64])
    assert [network.name for network in found.networks] == ["digits-mlp", "digits-conv"]
    assert found.networks[0].tuned == pytest.approx((0.75, 0.7, 0.8))
    text = list(lines(answer_of(rows), WIDE))
    assert any("mean of 3 seeds" in line and "fine-tuned for 10 epochs" in line for line in text)
    [told] = [line.split() for line in text if line.startswith(" digits-mlp")]
    assert " ".join(told) == (
        "digits-mlp tiled 0.9 0.900 (0.800 1.000) 0.400 (0.300 0.500) 0.750 (0.700 0.800) 0.25 0.50 [0.40 0.60] - "
        "1.00 [0.90 1.10] ?"
    )
    assert any(line.startswith("Verdicts: 0 faster (+), 1 slower (-)") for line in text)
