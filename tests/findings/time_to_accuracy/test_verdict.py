"""The soonest arm is named by seeds that tell nothing of it, and no arm by its luck."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.findings.time_to_accuracy.arms import Arm, TimeToAccuracy
from bench.findings.time_to_accuracy.seeds import Seed, Taken
from bench.findings.time_to_accuracy.verdict import Verdict, brief, sentence, verdict
from bench.statistics.censoring import Bounds, seen


def seed(ratio: Bounds) -> Seed:
    return Seed(0.9, Taken(*[ratio] * 3), Taken(*[seen(1.0)] * 3), 0.9, 0.9, 0.9, 0.9, 0.9, is_chosen=True)


def found(arms: dict[str, list[Bounds]], model: str = "sparse") -> TimeToAccuracy:
    made = [
        Arm(name, model, 0.8, 0.5, None, {number: seed(one) for number, one in enumerate(each)}) for name, each in arms.items()
    ]
    return TimeToAccuracy("digits", "8x8x8", "tuned", 2, 4, "cpu", 8, True, True, made)


def named(told: TimeToAccuracy) -> Verdict:
    one = verdict(told)
    assert one
    return one


ratios = st.lists(st.floats(0.1, 10), min_size=8, max_size=8)


@given(st.lists(ratios, min_size=2, max_size=5), ratios)
def test_the_seeds_that_choose_an_arm_tell_nothing_of_it_and_the_others_do_not_choose(
    arms: list[list[float]], other: list[float]
) -> None:
    def of(values: list[list[float]]) -> Verdict:
        return named(found({str(number): [*map(seen, each)] for number, each in enumerate(values)}))

    told = of(arms)
    assert max(arms[int(told.arm.name)][:2]) == min(max(each[:2]) for each in arms)
    assert (told.choosing, len(told.arm.seeds), told.of) == (2, 6, len(arms))
    assert set(told.arm.seeds) == {2, 3, 4, 5, 6, 7}
    changed = of([each[:2] + other[2:] for each in arms])
    assert changed.arm.name == told.arm.name
    assert of([[0.01, 0.01, *each[2:]] if str(n) == told.arm.name else each for n, each in enumerate(arms)]).arm == told.arm


def test_the_intervals_of_the_arm_that_is_named_hold_though_it_is_the_soonest_of_many() -> None:
    """Of 60 arms of which none is sooner than dense, one is called so by all of its seeds in a fifth of the runs."""
    draw, runs = random.Random(0), 200
    held = lucky = 0
    for _ in range(runs):
        arms = {str(arm): [math.exp(draw.gauss(0, 0.2)) for _ in range(8)] for arm in range(60)}
        interval = named(found({name: [*map(seen, each)] for name, each in arms.items()})).arm.time_ratio.interval
        assert interval
        held += interval.low <= 1 <= interval.high
        lucky += any(max(each) < 1 for each in arms.values())
    assert held / runs >= 0.95
    assert lucky / runs > 0.1


def test_an_arm_that_never_gets_there_is_not_named_before_one_that_does() -> None:
    never, late = [Bounds(0.1, math.inf)] * 8, [seen(5.0)] * 8
    assert named(found({"never": never, "late": late})).arm.name == "late"
    assert named(found({"late": late, "never": [*never[:7], seen(0.1)]})).arm.name == "late"


@pytest.mark.parametrize(
    ("narrow", "text"),
    [
        ([seen(0.5)] * 6, "0.60 [0.60 0.60] of the time of narrow dense at 0.8 (sooner)"),
        ([seen(0.2)] * 6, "1.50 [1.50 1.50] of the time of narrow dense at 0.8 (later)"),
        (
            [Bounds(0.2, math.inf)] * 6,
            "<1.50 [0.00 1.50] of the time of narrow dense at 0.8 (undecided, there in 0 of 6 seeds)",
        ),
        ([Bounds(0.5, math.inf)] * 6, "<0.60 [0.00 0.60] of the time of narrow dense at 0.8 (sooner, there in 0 of 6 seeds)"),
    ],
)
def test_the_arm_is_held_against_narrow_dense_seed_by_seed(narrow: list[Bounds], text: str) -> None:
    own, rival = found({"static tiled": [seen(0.3)] * 6}), found({"narrow": narrow}, "narrow")
    both = own._replace(arms=own.arms + rival.arms)
    assert text in sentence(both)
    ratio, _, verdict_on_it = text.partition(" of the time of narrow dense at 0.8 ")
    assert f"{ratio} of narrow's {verdict_on_it.partition(', there')[0].rstrip(')')})" in brief(both)


@pytest.mark.parametrize(
    ("ratios", "text"),
    [
        ([seen(1 / 3)] * 6, "in 0.33 [0.33 0.33] of dense's time (at most a third)"),
        ([seen(0.3)] * 5 + [seen(0.34)], "in 0.30 [0.30 0.34] of dense's time (sooner, a third not shown)"),
        (
            [seen(0.3)] * 5 + [Bounds(0.2, math.inf)],
            "in 0.30 [0.20 never] of dense's time (undecided, there in 5 of 6 seeds)",
        ),
        ([Bounds(1.5, math.inf)] * 6, "in >1.50 [1.50 never] of dense's time (later, there in 0 of 6 seeds)"),
        ([seen(0.3)] * 5, "in 0.30 of dense's time (no interval: it takes 6 seeds)"),
    ],
)
def test_a_third_is_claimed_only_where_the_whole_interval_is_below_it(ratios: list[Bounds], text: str) -> None:
    told = found({"static tiled": ratios})
    assert text in sentence(told)
    assert ("at most a third" in sentence(told)) == ("at most a third" in text)


def test_too_few_seeds_to_choose_an_arm_and_tell_how_it_fares_name_none() -> None:
    told = found({"one": [seen(0.3)] * 7, "other": [seen(0.5)] * 6 + [Bounds(0.6, math.inf)], "third": [seen(2.0)] * 7})
    assert verdict(told) is None
    assert brief(told) == ""
    assert "2 of 3 sparse arms come within 0.005 of dense's best" in sentence(told)
    assert "0.30 to 2.00 of dense's time; to name one takes 8 seeds" in sentence(told)
    assert sentence(told._replace(arms=[])) == ""


def test_an_arm_that_lacks_a_seed_may_be_named_and_that_is_said() -> None:
    """Which seeds choose depends on what there is alone: seed 0 does not where an arm lacks it."""
    other, soonest = [seen(0.5)] * 8, [seen(0.1), *[seen(0.3)] * 7]
    told = found({"other": other, "soonest": soonest})
    cut = told._replace(arms=[told.arms[0], told.arms[1].among(range(1, 8))])
    assert named(cut).arm.name == "soonest"
    assert set(named(cut).arm.seeds) == {3, 4, 5, 6, 7}
    assert "It has no figures of 1 seed that others have." in sentence(cut)
    assert "no interval: it takes 6 seeds" in sentence(cut)
    assert "no figures" not in sentence(told)
    assert named(told._replace(arms=[told.arms[0], told.arms[1].among([1])])).arm.name == "other"
