"""What a row says follows from its pairs and from what the body said."""

from typing import Any

import pytest

from bench.cases import Case
from bench.runs.outcome import Outcome, Race
from bench.runs.row import Row, row_of
from tests.helpers.fake_engine import FACTS

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
