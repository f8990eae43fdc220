"""Comparisons whose truth is planted are judged as any are, and held against it."""

import math
import random

import pytest
from hypothesis import given, settings

from bench.engine.calibration import jobs_of
from bench.engine.jobs import Job
from bench.findings.calibration import judge
from bench.runs.outcome import Outcome, Race
from tests.strategies import seeds


def outcomes(draw: random.Random, deviation: float) -> dict[Job, Outcome]:
    """What twelve processes would say of every comparison of a run, were their noise normal."""
    found = {}
    for job in jobs_of("cpu", 1):
        outcome = Outcome()
        truth = 1 / (1 + int(job.case.data) / 100)
        outcome.races = [Race([1.0], [truth * math.exp(draw.gauss(0, deviation))]) for _ in range(12)]
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
