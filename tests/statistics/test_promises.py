"""What the pages say of a verdict is what the numbers are, and where a verdict turns is where these say."""

import math
import re

import pytest
from scipy import special

from bench.statistics.changes import MIN_PAIRS, MIN_PROCESSES, change
from bench.statistics.intervals import CONFIDENCE, Interval
from bench.statistics.sequential import FEWEST, LEVELS, tolerated
from bench.statistics.verdicts import MARGIN, WRONG_VERDICTS, Evidence, judged
from tests.helpers.in_process import ROOT

SIDE = Interval(2.0, 1.5, 2.5)


def promised(page: str, sentence: str) -> list[str]:
    """Return the numbers that a page has where the pattern of a sentence does."""
    found = re.search(sentence, " ".join((ROOT / page).read_text().split()))
    assert found is not None, f"{page} no longer says {sentence}"
    return list(found.groups())


def test_the_pages_promise_what_the_numbers_are() -> None:
    wrong, margin, confidence = (f"{value:.0%}"[:-1] for value in (WRONG_VERDICTS, MARGIN, CONFIDENCE))
    assert (wrong, margin, confidence) == ("1", "5", "95")
    assert promised("README.md", r"faster and slower in a run, (\d+) % at most is expected to be wrong") == [wrong]
    assert promised("README.md", r"`=` same \(the interval lies within (\d+) % of 1\)") == [margin]
    assert promised("README.md", r"In brackets is its (\d+) % interval") == [confidence]
    assert promised("README.md", r"Fewer than (\d+) processes decide nothing") == [str(FEWEST)]
    assert promised("docs/options.md", r"fewer than (\d+) decide nothing") == [str(FEWEST)]
    assert promised("docs/options.md", r"from (\d+) processes on") == [str(MIN_PROCESSES)]
    assert promised("docs/comparing.md", r"needs (\d+) processes in both runs, (\d+) pairs where they took turns") == [
        str(MIN_PROCESSES),
        str(MIN_PAIRS),
    ]
    assert promised("docs/method.md", r"of whose findings (\d+) % at most is expected to be wrong") == [wrong]
    assert promised("docs/method.md", r"wrong in (\d+) % of cases at most, all looks together") == [wrong]
    assert promised("docs/method.md", r"the interval lies within (\d+) % of 1") == [margin]
    assert promised("docs/method.md", r"its (\d+) % interval over processes") == [confidence]


def test_the_table_of_what_decides_is_the_rule() -> None:
    rows = [
        f"| {level.factor:g} | 1/{round(1 / level.chance)} | {all_of} of {all_of} | {but_one - 1} of {but_one} |"
        for level in LEVELS
        for all_of, but_one in [[next(n for n in range(99) if tolerated(level, n, WRONG_VERDICTS) == odd) for odd in (0, 1)]]
    ]
    assert "\n".join(rows) in (ROOT / "docs/method.md").read_text()


@pytest.mark.parametrize("cases", [1, 10])
def test_of_many_the_least_p_turns_at_a_hundredth_over_their_number(cases: int) -> None:
    for p, verdict in ((0.0099, "faster"), (0.0101, "undecided")):
        known = {str(case): Evidence(SIDE, 1.0, SIDE, suffices=True) for case in range(cases)}
        assert judged({**known, "0": Evidence(SIDE, p / cases, SIDE, suffices=True)})["0"] == verdict


def test_of_many_that_differ_each_turns_at_a_hundredth() -> None:
    for p, verdict in ((0.0099, "faster"), (0.0101, "undecided")):
        told = judged({str(case): Evidence(SIDE, p, SIDE, suffices=True) for case in range(10)})
        assert set(told.values()) == {verdict}


def test_the_same_turns_at_a_twentieth() -> None:
    for reach, verdict in ((1.0499, "same"), (1.0501, "undecided")):
        for interval in (Interval(1.0, 1.0, reach), Interval(1.0, 1 / reach, 1.0)):
            assert judged({"case": Evidence(interval, 1.0, interval, suffices=True)})["case"] == verdict


def test_as_many_processes_and_pairs_as_a_change_takes_tell_one_and_one_fewer_does_not() -> None:
    for paired, enough in ((False, MIN_PROCESSES), (True, MIN_PAIRS)):
        for count, told in ((enough - 1, False), (enough, True)):
            old, new = ({n: level + n / 1000 for n in range(count)} for level in (1.0, 2.0))
            known = change(old, new, paired=paired)
            assert known is not None
            assert known.suffices == told
    assert (
        2 / math.comb(2 * MIN_PROCESSES, MIN_PROCESSES)
        <= WRONG_VERDICTS
        < 2 / math.comb(2 * MIN_PROCESSES - 2, MIN_PROCESSES - 1)
    )
    assert 2 * special.bdtr(0, MIN_PAIRS, 0.5) <= WRONG_VERDICTS < 2 * special.bdtr(0, MIN_PAIRS - 1, 0.5)
