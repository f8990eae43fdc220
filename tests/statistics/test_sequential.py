"""A case is looked at after every process, and all looks together are wrong as seldom as is said: counted, not simulated."""

import math
import statistics
from collections.abc import Callable
from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.statistics.intervals import median_interval
from bench.statistics.sequential import FEWEST, LEVELS, fewest_alike, sequential_interval, tolerated
from bench.statistics.verdicts import WRONG_VERDICTS, evidence_of, verdicts

LOOKS = 40
Count = tuple[int, ...]  # of processes beyond each level


def wrong_in_all_looks(decides: Callable[[int, Count], bool], looks: int = LOOKS) -> float:
    """Return the chance that a case that is not faster is called so at any look, were it as near to that as is assumed.

    All levels are counted together, path by path: a process says more than each level as often as its chance allows.
    """
    beyond = [level.chance for level in LEVELS]
    steps = [(level, chance) for level, chance in enumerate([1 - beyond[0], *(a - b for a, b in pairwise([*beyond, 0.0]))])]
    undecided, wrong = {(0,) * len(LEVELS): 1.0}, 0.0
    for look in range(1, looks + 1):
        met: dict[Count, float] = {}
        for counts, before in undecided.items():
            for reached, chance in steps:
                now = tuple(count + (number < reached) for number, count in enumerate(counts))
                met[now] = met.get(now, 0.0) + before * chance
        wrong += sum(chance for counts, chance in met.items() if decides(look, counts))
        undecided = {counts: chance for counts, chance in met.items() if chance > 1e-12 and not decides(look, counts)}
        wrong += sum(chance for counts, chance in met.items() if chance <= 1e-12 and not decides(look, counts))
    return wrong


def by_the_rule(look: int, counts: Count) -> bool:
    afforded = [tolerated(level, look, WRONG_VERDICTS) for level in LEVELS]
    return any(most is not None and look - count <= most for most, count in zip(afforded, counts, strict=True))


def test_all_looks_on_both_sides_together_are_wrong_in_no_more_than_a_hundredth() -> None:
    assert 0.9 * WRONG_VERDICTS < 2 * wrong_in_all_looks(by_the_rule, 16) <= WRONG_VERDICTS
    # By itself, whatever the others do, no level takes more than its share, in however many looks.
    for level in LEVELS:
        undecided, wrong = [1.0], 0.0
        for look in range(1, 200):
            both = zip([*undecided, 0.0], [0.0, *undecided], strict=True)
            undecided = [level.chance * same + (1 - level.chance) * fewer for same, fewer in both]
            most = tolerated(level, look, WRONG_VERDICTS)
            ends = 0 if most is None else most + 1
            wrong += sum(undecided[:ends])
            undecided[:ends] = [0.0] * ends
        assert 2 * wrong <= level.share * WRONG_VERDICTS
    assert math.fsum(level.share for level in LEVELS) == pytest.approx(1)


def test_the_sign_test_looked_at_after_every_process_was_wrong_more_often() -> None:
    def by_its_interval(look: int, counts: Count) -> bool:
        signs = [2.0] * counts[0] + [0.5] * (look - counts[0])
        return look >= 8 and median_interval(signs, 1 - WRONG_VERDICTS).low > 1

    assert 2 * wrong_in_all_looks(by_its_interval, 12) > WRONG_VERDICTS  # which is why it has a first look and a share


def test_how_many_processes_decide() -> None:
    first = {level.factor: next(n for n in range(1, 99) if tolerated(level, n, WRONG_VERDICTS) == 0) for level in LEVELS}
    one_odd = {level.factor: next(n for n in range(1, 99) if tolerated(level, n, WRONG_VERDICTS) == 1) for level in LEVELS}
    assert first == {1.0: 9, 1.5: 6, 2.0: 4, 4.0: 3}
    assert one_odd == {1.0: 12, 1.5: 11, 2.0: 8, 4.0: 6}
    assert min(first.values()) == FEWEST


@given(st.lists(st.floats(0.05, 20), min_size=1, max_size=14))
def test_the_interval_is_what_the_rule_cannot_tell_from_the_sample(sample: list[float]) -> None:
    interval = sequential_interval(sample, WRONG_VERDICTS)
    assert interval.low <= interval.median <= interval.high
    counts = [tuple(sum(value**sign > level.factor for value in sample) for level in LEVELS) for sign in (1, -1)]
    assert interval.low > 1 or not by_the_rule(len(sample), counts[0])
    assert interval.high < 1 or not by_the_rule(len(sample), counts[1])
    assert evidence_of([*sample, *sample]).passes_alone == any(
        by_the_rule(2 * len(sample), tuple(2 * count for count in one)) for one in counts
    )


@pytest.mark.parametrize(("ratio", "needs"), [(6.0, 3), (2.5, 4), (1.7, 6), (1.2, 9)])
def test_a_large_effect_is_decided_by_few_processes(ratio: float, needs: int) -> None:
    wiggle = [1.0, 1.03, 0.97, 1.01, 0.99, 1.02, 0.98, 1.0, 1.01]
    for count, sign in product(range(2, 10), (1, -1)):
        told = verdicts({"case": [(ratio * value) ** sign for value in wiggle[:count]]})["case"]
        assert told == ("undecided" if count < needs else "faster" if sign > 0 else "slower")


def test_one_odd_process_does_not_hide_a_large_effect() -> None:
    assert verdicts({"case": [6.0, 6.1, 5.9, 0.9, 6.2, 6.0, 5.8, 6.1]})["case"] == "faster"
    assert verdicts({"case": [6.0, 6.1, 5.9, 0.9]})["case"] == "undecided"


def test_a_case_is_the_same_from_six_processes_on() -> None:
    assert [verdicts({"case": [1.0, 1.01, 0.99, 1.0, 1.01, 0.99][:n]})["case"] for n in (5, 6)] == ["undecided", "same"]


@pytest.mark.parametrize(
    ("speedups", "processes"),
    [
        ([], 3), ([5.0], 3), ([0.2, 0.2], 3), ([5.0, 1.0], 8), ([2.5], 4), ([1.6], 6), ([1.2], 9), ([0.8] * 8, 9),
        ([*[0.8] * 8, 2.0], 12),
    ],
)  # fmt: skip
def test_how_many_alike_would_decide_is_how_many_do(speedups: list[float], processes: int) -> None:
    assert fewest_alike(speedups, WRONG_VERDICTS) == processes
    middle = statistics.median(speedups or [5.0])
    for count in range(len(speedups), processes + 1):
        interval = sequential_interval([*speedups, *[middle] * (count - len(speedups))] or [middle], WRONG_VERDICTS)
        assert (not interval.low <= 1 <= interval.high) == (count == processes)
