"""Comparisons whose truth is planted are judged as any are, and held against it."""

import math
import random

import pytest
from hypothesis import given, settings

from bench.engine.calibration import jobs_of
from bench.engine.jobs import Job, Spent
from bench.findings.calibration import Calibration, Comparison, judge, resolution_of, so_far
from bench.runs.outcome import Outcome, Race
from bench.statistics.intervals import Interval
from tests.strategies import seeds


def outcomes(draw: random.Random, deviation: float) -> dict[Job, Outcome]:
    """What twelve processes would say of every comparison of a run, were their noise normal."""
    found = {}
    for job in jobs_of("cpu", 1):
        outcome = Outcome()
        truth = 1 / (1 + int(job.case.data) / 100)
        for process in range(12):
            outcome.add(process, Race([1.0], [truth * math.exp(draw.gauss(0, deviation))]), {})
        found[job] = outcome
    return found


@settings(max_examples=4)  # each is a whole run of comparisons
@given(seeds)
def test_comparisons_know_their_truth_and_a_quiet_machine_finds_all(seed: int) -> None:
    found = judge(0, outcomes(random.Random(seed), 0.005))
    assert len(found) == len(jobs_of("cpu", 1))
    for one in found:
        assert one.truth == pytest.approx(1 / (1 + one.planted / 100))
        assert one.interval.low <= one.interval.median <= one.interval.high
        if one.planted != 5:  # which lies on the margin itself
            assert one.verdict == one.verdict_alone == ("same" if one.planted == 0 else "slower")


def test_alone_among_identical_code_a_difference_is_harder_to_find() -> None:
    found = judge(0, outcomes(random.Random(0), 0.06))
    together, alone = (sum(getattr(one, field) == "slower" for one in found) for field in ("verdict", "verdict_alone"))
    assert 0 < alone < together


def told(planted: int, verdict: str, low: float, high: float, alone: str = "undecided") -> Comparison:
    return Comparison(0, "work", planted, [1.0, 1.0], Interval(1.0, low, high), verdict, alone)


def test_what_a_machine_resolves_follows_from_each_comparison() -> None:
    floor = [told(0, "same", 1 / (1 + number / 10), 1.01) for number in range(1, 12)]
    slow = [told(10, verdict, 0.8, high, "slower") for verdict, high in (("slower", 1.0), ("faster", 2.0), ("undecided", 0.85))]
    found = resolution_of(Calibration([*floor, *slow], 70.0, 35, Spent(timed=1.0)))
    assert found is not None
    assert found.floor == pytest.approx((0.6, 1.0))
    assert found.seconds_a_case == 2.0
    [none, tenth] = found.planted
    assert (none.percent, tenth.percent) == (0, 10)
    assert [rate.hits for rate in tenth[1:5]] == [1, 1, 3, 2]  # slower, faster, slower alone, covered
    assert tenth.half_width == pytest.approx(0.25)


def test_a_false_alarm_is_either_verdict_on_identical_code() -> None:
    comparisons = [*(told(0, verdict, 0.9, 1.1) for verdict in ("faster", "slower", "same")), told(10, "slower", 0.9, 1.0)]
    assert so_far(comparisons) == "false alarms 2 of 3, slowdowns found 5 %: 0 of 0, 10 %: 1 of 1, 20 %: 0 of 0"
    found = resolution_of(Calibration(comparisons, 1.0, 4, Spent(timed=1.0)))
    assert found is not None
    assert (found.alarms.hits, found.alarms.of) == (2, 3)
