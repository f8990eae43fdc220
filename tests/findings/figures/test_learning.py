"""What learning curves tell: means and ranges over seeds, and the first epoch of an arm within the margin of dense's best."""

import math
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.findings.figures.learning import DENSE, Learning, learning
from bench.findings.time_to_accuracy.seeds import MARGIN
from bench.runs.row import Row
from tests.helpers.rows import row

EPOCHS = 4
accuracies = st.lists(st.integers(0, 100).map(lambda count: count / 100), min_size=EPOCHS, max_size=EPOCHS)
seconds = st.lists(st.floats(1e-4, 10), min_size=EPOCHS, max_size=EPOCHS)
curves = st.lists(st.tuples(accuracies, seconds), min_size=1, max_size=4)


def trained(of_seeds: list[tuple[list[float], list[float]]], dense: list[float], **fields: Any) -> dict[str, Row]:
    common = {"op": "train", "data": "digits", "protocol": "tuned", "epochs": EPOCHS, "dense_epoch_accuracies": dense}
    common["dense_epoch_seconds"] = [1.0] * EPOCHS
    return {
        f"{fields.get('layer', 'csr')} {seed}": row(
            **common | fields, seed=seed, epoch_accuracies=accuracy, epoch_seconds=took, process_numbers=[seed],
            test_accuracy=accuracy[-1], dense_test_accuracy=dense[-1],
        )
        for seed, (accuracy, took) in enumerate(of_seeds)
    }  # fmt: skip


def only(rows: dict[str, Row]) -> Learning:
    [found] = learning(rows)
    return found


@given(curves, accuracies)
def test_a_curve_is_the_mean_over_seeds_with_its_range_and_goes_on_in_time(
    of_seeds: list[tuple[list[float], list[float]]], dense: list[float]
) -> None:
    [curve] = only(trained(of_seeds, dense)).curves
    for number, epoch in enumerate(curve.epochs):
        seen = [accuracy[number] for accuracy, _ in of_seeds]
        assert epoch.accuracy.mean == statistics.mean(seen)
        assert (epoch.accuracy.lowest, epoch.accuracy.highest) == (min(seen), max(seen))
        assert abs(epoch.seconds - statistics.mean(sum(took[: number + 1]) for _, took in of_seeds)) < 1e-9
    assert [epoch.number for epoch in curve.epochs] == [*range(1, EPOCHS + 1)]
    assert curve.epochs[-1].flops == row()["flops_counted"]


@given(curves, accuracies)
def test_the_target_is_reached_in_the_first_epoch_within_the_margin_of_denses_best(
    of_seeds: list[tuple[list[float], list[float]]], dense: list[float]
) -> None:
    [curve] = only(trained(of_seeds, dense)).curves
    means = [statistics.mean(accuracy[number] for accuracy, _ in of_seeds) for number in range(EPOCHS)]
    as_good = [number + 1 for number, mean in enumerate(means) if mean >= max(dense) - MARGIN - 1e-9]
    assert (curve.reached.number if curve.reached else None) == min(as_good, default=None)
    if len(of_seeds) == 1:
        until = sum(of_seeds[0][1][: curve.reached.number if curve.reached else EPOCHS])
        first = next(number for number, value in enumerate(dense, 1) if value >= max(dense) - MARGIN - 1e-9)
        assert curve.time_ratio.median.low == pytest.approx(until / first)
        assert math.isfinite(curve.time_ratio.median.high) == bool(curve.reached)


def test_dense_itself_reaches_its_own_level() -> None:
    dense = [0.1, 0.9, 0.5, 0.7]
    found = only(trained([(dense, [1.0] * EPOCHS)], dense, model="dense", layer="dense"))
    assert found.curves[0].arm == DENSE
    assert found.curves[0].reached
    assert found.curves[0].reached.number == 2
    assert found.target == pytest.approx(0.9 - MARGIN)


def test_trainings_without_curves_still_end() -> None:
    rows = trained([([0.5] * EPOCHS, [1.0] * EPOCHS)] * 3, [0.75] * EPOCHS)
    for one in rows.values():
        del one["epoch_accuracies"], one["dense_epoch_accuracies"], one["epoch_seconds"]
    found = only(rows)
    assert (found.curves, found.target, found.test_level) == ([], None, 0.75)
    [end] = found.ends
    assert end.difference
    assert end.difference.median == -0.25


def test_a_seed_that_was_cut_short_is_no_part_of_a_curve() -> None:
    rows = trained([([0.5] * EPOCHS, [1.0] * EPOCHS), ([0.9], [1.0])], [0.75] * EPOCHS)
    [curve] = only(rows).curves
    assert [epoch.accuracy.highest for epoch in curve.epochs] == [0.5] * EPOCHS


def test_what_says_most_is_told_first() -> None:
    each = [("random", "seed"), ("digits", "seed"), ("random", "tuned"), ("digits", "tuned")]
    rows = {
        f"{data} {protocol}": next(iter(trained([([0.5] * EPOCHS, [1.0] * EPOCHS)], [0.5] * EPOCHS).values()))
        | {"data": data, "protocol": protocol}
        for data, protocol in each
    }
    assert [(one.data, one.protocol) for one in learning(rows)] == [
        ("digits", "tuned"), ("random", "tuned"), ("digits", "seed"), ("random", "seed"),
    ]  # fmt: skip
