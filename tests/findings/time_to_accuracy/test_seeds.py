"""What it takes until a training is as accurate as dense: planted curves are told."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.findings.time_to_accuracy.arms import time_to_accuracy
from bench.findings.time_to_accuracy.seeds import MARGIN, MOMENTS, Seed, seed_of
from bench.runs.row import Row
from sparse_models.updates import UPDATES
from tests.helpers.rows import learnt, row

NARROW = {"model": "narrow", "layer": "dense", "shape": "8x4x8"}
accuracies = st.lists(st.integers(0, 400).map(lambda count: count / 400), min_size=1, max_size=8)  # 2 of 400 are the margin


@st.composite
def curves(draw: st.DrawFn) -> tuple[list[float], list[float]]:
    told = draw(accuracies)
    return told, draw(st.lists(st.floats(1e-4, 10), min_size=len(told), max_size=len(told)))


def trained(own: tuple[list[float], list[float]], dense: tuple[list[float], list[float]], **fields: Any) -> Row:
    [one] = learnt([own], dense_epoch_accuracies=dense[0], dense_epoch_seconds=dense[1], **fields)
    return one


def told(own: tuple[list[float], list[float]], dense: tuple[list[float], list[float]], **fields: Any) -> Seed:
    seed = seed_of(trained(own, dense, **fields))
    assert seed
    return seed


@given(curves(), curves())
def test_the_first_epoch_within_the_margin_of_denses_best_is_found_or_all_is_a_lower_bound(
    own: tuple[list[float], list[float]], dense: tuple[list[float], list[float]]
) -> None:
    seed = told(own, dense)
    least = round(max(dense[0]) * 400) - MARGIN * 400  # samples, whole ones
    for (accuracy, seconds), taken, flops in ((own, seed.own, 2e9), (dense, seed.dense, 1e10)):
        there = [number for number, value in enumerate(accuracy, 1) if round(value * 400) >= least]
        epochs = there[0] if there else len(accuracy)
        assert taken.is_there == bool(there)
        assert taken.epochs == (epochs, epochs if there else math.inf)
        assert taken.seconds.low == pytest.approx(sum(seconds[:epochs]))
        assert taken.flops.low == pytest.approx(flops * epochs / len(accuracy))
        assert [bound.high for bound in taken] == ([bound.low for bound in taken] if there else [math.inf] * 3)
    assert seed.dense.is_there
    assert all(0 <= bound.low <= bound.high and not math.isnan(bound.high) for bound in seed.ratios)


@pytest.mark.parametrize(("samples", "margin"), [(200, 1), (400, 2), (1000, 5)])
def test_an_arm_that_is_behind_by_just_the_margin_is_there_and_one_sample_less_is_not(samples: int, margin: int) -> None:
    for best in range(margin + 1, samples + 1):
        for behind, is_there in ((margin, True), (margin + 1, False)):
            seed = told(([(best - behind) / samples], [1.0]), ([best / samples], [1.0]))
            assert seed.own.is_there == is_there


@given(curves(), curves())
def test_accuracy_at_equal_time_is_that_of_the_last_epoch_done(
    own: tuple[list[float], list[float]], dense: tuple[list[float], list[float]]
) -> None:
    seed = told(own, dense)
    for moment, accuracy in ((seed.dense.seconds.low, seed.when_dense_is_there), (sum(dense[1]), seed.when_dense_ends)):
        found = set[float]()
        for off in (1 - 1e-12, 1 + 1e-12):  # an epoch that ends at the moment itself may be done or not, as sums are rounded
            done = [value for number, value in enumerate(own[0], 1) if sum(own[1][:number]) <= moment * off]
            found.add(done[-1] if done else 0.0)
        assert accuracy in found


@given(curves(), curves(), st.data())
def test_test_accuracy_is_read_where_validation_is_best_and_chooses_nothing(
    own: tuple[list[float], list[float]], dense: tuple[list[float], list[float]], data: st.DataObject
) -> None:
    tested = {
        field: data.draw(st.lists(st.floats(0, 1), min_size=len(curve[0]), max_size=len(curve[0])))
        for field, curve in (("epoch_test_accuracies", own), ("dense_epoch_test_accuracies", dense))
    }
    without, seed = told(own, dense), told(own, dense, **tested)
    assert without._replace(test_accuracy=0, dense_test_accuracy=0, is_chosen=True) == seed._replace(
        test_accuracy=0, dense_test_accuracy=0
    )
    assert seed.test_accuracy == tested["epoch_test_accuracies"][own[0].index(max(own[0]))]
    assert seed.dense_test_accuracy == tested["dense_epoch_test_accuracies"][dense[0].index(max(dense[0]))]
    assert (without.is_chosen, without.test_accuracy, without.dense_test_accuracy) == (False, 0.75, 0.875)


@pytest.mark.parametrize("rule", sorted(name for name, rule in UPDATES.items() if rule.resizes))
def test_flops_until_an_epoch_follow_the_schedule_of_a_rule_that_sparsifies(rule: str) -> None:
    [one] = learnt([([0.1, 0.1, 0.9, 0.1], [1.0] * 4)], update=rule)
    seed = seed_of(one)
    assert seed
    kept = [1 - UPDATES[rule].sparsity_at(0.8, (number + 0.5) / (4 * MOMENTS)) for number in range(4 * MOMENTS)]
    assert seed.own.flops.high == pytest.approx(2e9 * sum(kept[: 3 * MOMENTS]) / sum(kept))
    assert 0.75 * 2e9 < seed.own.flops.high < 2e9  # it is denser early on


@pytest.mark.parametrize(
    "lacking", [{"epoch_accuracies": None}, {"epoch_accuracies": []}, {"epoch_seconds": [1.0]}, {"dense_epoch_seconds": [1.0]}]
)
def test_a_training_without_whole_curves_is_left_out(lacking: Row) -> None:
    [whole, cut] = learnt([([0.9, 0.9], [0.5, 0.5])] * 2)
    [found] = time_to_accuracy([whole, cut | lacking])
    assert found.seeds == len(found.arms[0].seeds) == 1
    assert time_to_accuracy([cut | lacking, row(op="train", data="digits", protocol="tuned")]) == []


def test_random_labels_have_no_accuracy_to_come_to() -> None:
    assert time_to_accuracy(learnt([([0.9, 0.9], [0.5, 0.5])], data="random")) == []


def test_arms_stand_beside_the_dense_that_they_were_trained_with_the_soonest_first() -> None:
    rows = [
        *learnt([([0.1, 0.9], [0.9, 0.9])] * 3, shape="8x8x8", bytes_stored=300, dense_bytes_stored=None),
        *learnt([([0.9, 0.9], [0.2, 0.2])] * 3, update="set", shape="8x8x8"),
        *learnt([([0.1, 0.1], [0.1, 0.1])] * 3, **NARROW),
        *learnt([([0.9, 0.9], [0.2, 0.2])] * 3, shape="8x9x8", dense_flops_counted=2e10),
    ]
    first, second = time_to_accuracy(rows)
    assert [arm.name for arm in first.arms] == ["set tiled", "static tiled", "narrow"]
    assert (first.shape, second.shape) == ("8x8x8", "8x9x8")
    assert [arm.time_ratio.median for arm in first.arms] == [(0.1, 0.1), (0.9, 0.9), (0.1, math.inf)]
    assert [arm.there for arm in first.arms] == [3, 3, 0]
