"""What a row says follows from its pairs and from what the body said."""

from typing import Any

import pytest

from bench.cases import Case
from bench.runs.outcome import Outcome, Race
from bench.runs.row import Row, row_of
from tests.helpers.fake_engine import FACTS
from tests.runs.test_outcome import clean, disturbed

CASE = Case("forward", "sparse", "csr", "static", "8x8b4", 0.5, "cpu", "float32", 1)


def told(case: Case, *races: Race, **facts: Any) -> Row:
    outcome = Outcome()
    for number, race in enumerate(races):
        outcome.add(number, race, FACTS | facts)
    return row_of(case, outcome, "undecided")


def test_a_training_reaches_the_flops_of_one_epoch_in_the_seconds_of_one() -> None:
    row = told(CASE._replace(op="train"), Race([0.5] * 4, [1.0] * 4), epochs=4, flops_executed=8e9)
    assert row["gflops"] == pytest.approx(4.0)
    assert (row["training_seconds"], row["dense_training_seconds"]) == (2.0, 4.0)
    assert told(CASE, Race([0.5] * 4, [1.0] * 4), flops_executed=8e9)["gflops"] == pytest.approx(16.0)


def test_an_epoch_that_was_disturbed_takes_as_long_as_the_nearest_that_was_not() -> None:
    race = disturbed(70.0).joined(clean(1.0)).joined(disturbed(80.0, 90.0)).joined(clean(4.0))
    row = told(CASE._replace(op="train"), race, epochs=5)
    assert row["epoch_seconds"] == [1.0, 1.0, 1.0, 4.0, 4.0]
    assert row["dense_epoch_seconds"] == [2.0, 2.0, 2.0, 8.0, 8.0]
    assert (row["training_seconds"], row["dense_training_seconds"]) == (11.0, 22.0)
    assert row["pair_seconds"] == [70.0, 1.0, 80.0, 90.0, 4.0]


def test_a_disturbed_epoch_of_an_arm_alone_takes_as_long_as_the_nearest_of_its_own_that_was_not() -> None:
    race = clean(4.0)._replace(later=[70.0, 80.0, 3.0, 90.0], later_waited=[1.0, 1.0, 0.0, 1.0])
    row = told(CASE._replace(op="train"), race, epochs=1)
    assert row["later_epoch_seconds"] == [4.0, 3.0, 3.0, 3.0]
    assert (row["epoch_seconds"], row["training_seconds"]) == ([4.0], 4.0)


def test_a_bounded_kernel_loads_half_as_many_numbers_as_it_has_flops() -> None:
    row = told(CASE, Race([0.5], [1.0]), flops_executed=8e9, bound_gflops=32.0)
    assert row["bound_fraction"] == pytest.approx(0.5)
    assert row["tile_gb_per_s"] == pytest.approx(16.0 / 2 * 4)


def test_what_is_exceeded_by_more_than_measuring_explains_is_no_bound() -> None:
    fractions = [
        told(CASE, Race([0.5], [1.0]), flops_executed=8e9, bound_gflops=bound).get("bound_fraction") for bound in (15.5, 9)
    ]
    assert fractions == [1.0, None]


def test_seconds_are_the_median_of_the_processes() -> None:
    row = told(CASE, *(Race([seconds], [2 * seconds]) for seconds in (1.0, 2.0, 9.0)))
    assert (row["seconds"], row["dense_seconds"]) == (2.0, 4.0)


def test_a_process_without_an_undisturbed_pair_says_nothing_and_its_pairs_are_kept() -> None:
    row = told(CASE, clean(1.0, 2.0), disturbed(7.0, 8.0, 9.0), clean(3.0).joined(disturbed(4.0)))
    assert (row["process_numbers"], row["process_speedups"], row["process_seconds"]) == ([0, 2], [2.0, 2.0], [1.5, 3.0])
    assert (row["processes"], row["process_pairs"]) == (2, [2, 2, 3])
    assert row["pair_seconds"] == [1.0, 2.0, 3.0, 4.0, 7.0, 8.0, 9.0]
    assert (row["pairs"], row["undisturbed_pairs"]) == (7, 3)
    assert row["interval_over"] == "processes"
    assert told(CASE, disturbed(1.0), clean(1.0))["interval_over"] == "pairs"


def test_how_far_apart_the_cores_were_is_told_of_each_process_that_says_something() -> None:
    visits = [clean(1.0)._replace(handovers=[1.0, 4.0, 2.0]), disturbed(1.0)._replace(handovers=[9.0]), clean(2.0)]
    assert told(CASE, *visits)["process_handover_seconds"] == [2.0, 0.0]
    assert "process_handover_seconds" not in told(CASE, clean(2.0))
