"""The table of a calibration: rates with their intervals, and where the time went."""

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.engine.jobs import Spent
from bench.findings.calibration import Calibration, Planted, Resolution, judge, resolution_of
from bench.statistics.proportions import rate
from bench.tables.calibration import lines
from tests.findings.test_calibration import outcomes
from tests.helpers.rows import WIDE


@pytest.mark.parametrize(
    ("hits", "of", "text"),
    [  # Clopper and Pearson's bounds, as tabulated: the rule of three, and 10 of 20
        (0, 200, "0 of 200 = 0.0% [0.0% 1.8%]"),
        (200, 200, "200 of 200 = 100.0% [98.2% 100.0%]"),
        (10, 20, "10 of 20 = 50.0% [27.2% 72.8%]"),
    ],
)
def test_rates_have_their_interval(hits: int, of: int, text: str) -> None:
    assert str(rate(hits, of)) == text


def test_the_table_counts_what_the_comparisons_say() -> None:
    found = judge(0, outcomes(random.Random(1), 0.01))
    spent = Spent(timed=60.0, warming=20.0, building=10.0, starting=8.0, bookkeeping=2.0)
    text = "\n".join(lines(resolution_of(Calibration(found, 100.0, len(found), spent)), 40e-9, WIDE))
    identical = sum(one.planted == 0 for one in found)
    slow = [one for one in found if one.planted == 10]
    assert f"False alarms on identical code: 0 of {identical} = 0.0%" in text
    assert f"{len(slow)} of {len(slow)} = 100.0%" in text
    assert "starting processes and bookkeeping: 12.5% of the time in which works ran; its loop and clock add 40 ns" in text
    covered = sum(one.interval.low <= one.truth <= one.interval.high for one in found)
    assert f"The interval holds the truth: {covered} of {len(found)} = " in text


def test_no_complete_run_is_said() -> None:
    assert "no run is complete: ask for more time with --budget" in "\n".join(
        lines(resolution_of(Calibration([], 1.0, 0, Spent())), 0.0)
    )


@given(st.integers(1, 400), st.data())
def test_a_rates_interval_holds_the_rate(of: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, of))
    found = rate(hits, of)
    assert found.low <= hits / of <= found.high


def test_each_rate_stands_under_its_own_header() -> None:
    one, two, three, four = (rate(hits, 9) for hits in (1, 2, 3, 4))
    found = Resolution([Planted(5, one, two, three, four, 0.1)], one, one, (0.1, 0.2), 1.0, Spent(), 0.1)
    [header] = [line for line in lines(found, 0.0, WIDE) if line.strip().startswith("planted")]
    [line] = [line for line in lines(found, 0.0, WIDE) if line.strip().startswith("5 %")]
    ends = [header.index(name) + len(name) for name in ("slower", "faster", "identical", "truth")]
    assert [re.findall(r"\d of 9", line[:end])[-1] for end in ends] == [f"{hits} of 9" for hits in (1, 2, 3, 4)]
