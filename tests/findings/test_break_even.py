import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.findings.activations.by_zeros import by_zeros
from bench.findings.break_even import ABOVE, BELOW, break_even, break_evens, crossing, told
from bench.runs.row import Row
from tests.helpers.rows import levels, row
from tests.strategies import seeds

AT = [0.5, 0.8, 0.9, 0.95, 0.99]


def text(rows: list[Row]) -> str:
    return told(break_even(rows), rows)


def curves(*processes: list[float]) -> list[Row]:
    """The rows of as many processes, each with a speed-up for each sparsity."""
    return [
        row(sparsity=sparsity, process_speedups=list(values), process_numbers=list(range(len(processes))))
        for sparsity, values in zip(AT, zip(*processes, strict=True), strict=True)
    ]


@given(st.floats(0.01, 0.999))
def test_crossing_finds_the_break_even_of_time_proportional_to_density(pays_from: float) -> None:
    sparsities = [0.0, 0.5, 0.8, 0.9, 0.95, 0.99, 0.9999]
    speedups = [(1 - pays_from) / (1 - sparsity) for sparsity in sparsities]
    assert crossing(sparsities, speedups) == pytest.approx(pays_from)


def test_crossing_at_sparsity_1_is_finite() -> None:
    assert crossing([0.5, 1.0], [0.5, 2.0]) == pytest.approx(0.75)


def test_the_last_crossing_counts() -> None:
    assert crossing([0.5, 0.8, 0.9, 0.95], [1.2, 0.5, 0.9, 1.5]) == pytest.approx(0.91, abs=0.02)


def test_out_of_range_is_told_apart() -> None:
    assert crossing(AT, [0.5, 0.6, 0.7, 0.8, 0.9]) == ABOVE
    assert crossing(AT, [1.5, 1.6, 1.7, 1.8, 1.9]) == BELOW


def test_none_in_range_is_an_answer() -> None:
    assert text(levels([0.1, 0.2, 0.3, 0.4, 0.9])) == "none in range"
    assert text(curves(*[[0.1, 0.2, 0.3, 0.4, 0.9]] * 12)) == "none in range"


def test_always_faster_is_below_the_range() -> None:
    assert text(levels([1.1, 2, 3, 4, 5])) == "below 0.5"
    assert text(curves(*[[1.1, 2, 3, 4, 5]] * 12)) == "below 0.5"


def test_few_processes_have_the_interval_of_both_bounds() -> None:
    value, low, high = (float(part.strip("[]")) for part in text(levels([0.4, 0.9, 1.2, 2, 4], width=0.1)).split())
    assert 0.8 <= low < value < high <= 0.9


def test_break_even_bounds_may_lie_out_of_range() -> None:
    assert text(levels([0.97, 0.98, 0.99, 0.995, 1.01], width=0.1)).endswith("[<0.5 >0.99]")


def test_break_even_claims_nothing_that_the_intervals_leave_open() -> None:
    assert text(levels([0.5, 0.6, 0.7, 0.8, 0.99], width=0.1)) == ">0.99 [0.98 >0.99]"
    assert text(levels([1.01, 1.01, 1.02, 1.02, 1.05], width=0.2)) == "<0.5 [<0.5 >0.99]"


def test_processes_that_disagree_about_the_range_leave_it_open() -> None:
    never, early = [0.1, 0.2, 0.3, 0.4, 0.9], [0.9, 1.2, 1.5, 2, 4]
    assert text(curves(*[never] * 6, *[early] * 6)).startswith(">0.99 [")
    assert text(curves(*[never] * 9, *[early] * 3)).endswith(">0.99]")
    assert text(curves(*[never] * 2, *[early] * 10)) == "0.64 [0.64 0.64]"


def test_a_machine_slow_for_a_process_moves_all_its_points_and_not_the_others() -> None:
    # What shifts a whole curve is one observation, not five: the interval is that of the processes' own crossings.
    crossings = [0.80, 0.81, 0.82, 0.83, 0.84, 0.85, 0.86, 0.87]
    even = break_even(curves(*[[(1 - c) / (1 - s) for s in AT] for c in crossings]))
    assert even == pytest.approx((0.835, 0.80, 0.87), abs=1e-9)


@given(seeds)
def test_the_interval_covers_the_true_break_even(seed: int) -> None:
    draw = random.Random(seed)
    covered = 0
    for _ in range(60):
        processes = [[math.exp(draw.gauss(0, 0.1)) * (1 - 0.85) / (1 - s) for s in AT] for _ in range(12)]
        even = break_even(curves(*processes))
        covered += even.low <= 0.85 <= even.high
    assert covered >= 50  # 96 % of 60, four standard deviations away


def test_processes_that_missed_a_row_are_left_out() -> None:
    rows = curves(*[[0.9, 1.2, 1.5, 2, 4]] * 7)
    rows[2] = row(sparsity=0.9, process_speedups=[1.5] * 6, process_numbers=[0, 1, 2, 4, 5, 6])
    assert text(rows) == "0.64 [0.64 0.64]"


def test_records_are_plain_and_one_for_each_curve() -> None:
    rows = levels([0.4, 0.9, 1.2, 2, 4]) + [row(op="step", sparsity=s) for s in AT] + [row(op="train"), row(op="backward")]
    records = list(break_evens(rows))
    assert [record["op"] for record in records] == ["forward", "step"]
    assert json.loads(json.dumps(records)) == records
    assert records[0]["measured_from"], records[0]["measured_to"] == (0.5, 0.99)


def test_rows_skewed_otherwise_are_another_curve() -> None:
    both = [one | {"skew": skew} for skew, level in ((0.0, 0.5), (0.25, 2.0)) for one in levels([level] * len(AT))]
    assert [(record["skew"], record["told"]) for record in break_evens(both)] == [(0.0, "none in range"), (0.25, "below 0.5")]
    assert not list(break_evens([row(skew=0.0), row(skew=0.25)]))  # of one sparsity there is no curve


def test_a_layer_breaks_even_at_a_share_of_zero_inputs_of_its_own() -> None:
    rows = [
        row(zeros=zeros, speedup=speedup, speedup_low=speedup, speedup_high=speedup, sparsity=sparsity)
        for sparsity, speedups in ((0.0, (0.5, 1.0, 5.0)), (0.8, (1.5, 2.0, 9.0)), (0.9, (0.1, 0.2, 0.5)))
        for zeros, speedup in zip((0.0, 0.5, 0.9), speedups, strict=True)
    ]
    told = {curve.sparsity: curve.break_even for curve in by_zeros(rows)}
    assert told == {0.0: "0.50 [0.50 0.50]", 0.8: "from 0 on", 0.9: "none in range"}
    assert [list(curve.points) for curve in by_zeros(rows)] == [[0.0, 0.5, 0.9]] * 3
    assert not by_zeros(rows[::3])  # of one share there is no curve
    assert not list(break_evens(rows[:3]))  # nor of one sparsity
