import math
import random
import statistics
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.statistics.changes import change, shift
from bench.statistics.verdicts import judged
from tests.strategies import seeds

Sample = dict[int, float]
figures = st.floats(0.01, 100)
samples = st.dictionaries(st.integers(0, 20), figures, min_size=2, max_size=14)


def noisy(draw: random.Random, count: int, level: float = 1.0, deviation: float = 0.05) -> Sample:
    return {number: level * math.exp(draw.gauss(0, deviation)) for number in range(count)}


@given(samples, st.booleans())
def test_a_sample_against_itself_is_the_same_whatever_it_is(sample: Sample, paired: bool) -> None:
    known = change(sample, dict(sample), paired=paired)
    assert known is not None
    assert known.interval == (1, 1, 1)
    assert judged({"": known}) == {"": "same"}


@given(samples, samples, st.booleans())
def test_swapping_old_and_new_inverts_change_and_verdict(old: Sample, new: Sample, paired: bool) -> None:
    one, other = change(old, new, paired=paired), change(new, old, paired=paired)
    assert (one is None) == (other is None)
    if one is not None and other is not None:
        inverse = [1 / other.interval.median, 1 / other.interval.high, 1 / other.interval.low]
        # The median of an even number of ratios is the mean of the middle two, whose inverse is another mean.
        assert list(one.interval[1:]) == pytest.approx(inverse[1:])
        assert one.interval.low * (1 - 1e-9) <= inverse[0] <= one.interval.high * (1 + 1e-9)
        assert one.p == pytest.approx(other.p, abs=1e-9)
        assert (one.passes_alone, one.suffices) == (other.passes_alone, other.suffices)


@given(samples, seeds, st.booleans())
def test_the_order_of_the_processes_does_not_matter(sample: Sample, seed: int, paired: bool) -> None:
    draw = random.Random(seed)
    other = {number: value * draw.uniform(0.5, 2) for number, value in sample.items()}
    shuffled = dict(draw.sample(list(other.items()), len(other)))
    assert change(sample, other, paired=paired) == change(sample, shuffled, paired=paired)


@given(samples, samples, st.floats(0.1, 10))
def test_a_factor_on_the_new_sample_is_one_on_the_change(old: Sample, new: Sample, factor: float) -> None:
    one, other = (change(old, {n: v * scale for n, v in new.items()}, paired=False) for scale in (1.0, factor))
    assert one is not None
    assert other is not None
    if old not in (new, {n: v * factor for n, v in new.items()}):
        assert list(other.interval) == pytest.approx([bound * factor for bound in one.interval])


@pytest.mark.parametrize(("olds", "news"), [(4, 4), (5, 7), (8, 3)])
def test_the_interval_of_few_is_that_of_all_orders_counted(olds: int, news: int) -> None:
    # By the definition: in how many of all orders are at most so many pairs reversed?
    ranks = range(olds + news)
    reversals = [
        sum(before > after for before in chosen for after in set(ranks) - set(chosen)) for chosen in combinations(ranks, olds)
    ]
    # Powers of two: every difference is there once, in a known order.
    draw = random.Random(olds)
    old, new = ([draw.random() for _ in range(count)] for count in (olds, news))
    differences = sorted(after - before for before in old for after in new)
    for confidence in (0.8, 0.9, 0.95):
        k = sum(
            sum(count <= bound for count in reversals) <= (1 - confidence) / 2 * len(reversals) for bound in range(olds * news)
        )
        if k:
            interval = shift(old, new, confidence)
            assert (math.log(interval.low), math.log(interval.high)) == pytest.approx((differences[k - 1], differences[-k]))


def test_many_processes_have_the_normal_interval_near_the_exact_one() -> None:
    draw = random.Random(3)
    old, new = ([draw.gauss(0, 1) for _ in range(count)] for count in (50, 50))
    exact = shift(old, new, 0.95)
    normal = shift([*old, 0.0], new, 0.95)  # past the number of pairs that are counted
    assert list(normal) == pytest.approx(list(exact), rel=0.1)


@given(seeds)
def test_too_few_for_an_interval_have_one_around_all_differences(seed: int) -> None:
    draw = random.Random(seed)
    old, new = noisy(draw, 3), noisy(draw, 3)
    known = change(old, new, paired=False)
    assert known is not None
    ratios = [after / before for before in old.values() for after in new.values()]
    assert known.interval.low <= min(ratios) * (1 + 1e-9)
    assert known.interval.high >= max(ratios) * (1 - 1e-9)
    assert not known.suffices


def test_one_process_says_nothing() -> None:
    assert change({0: 1.0}, {0: 2.0, 1: 2.0}, paired=False) is None
    assert change({0: 1.0, 1: 1.0}, {1: 2.0, 2: 2.0}, paired=True) is None
    assert change({}, {}, paired=False) is None


@pytest.mark.parametrize("paired", [True, False])
def test_identical_code_is_seldom_called_different_and_a_planted_slowdown_is_found(paired: bool) -> None:
    draw = random.Random(11)
    cases = {f"{number}": change(noisy(draw, 12), noisy(draw, 12), paired=paired) for number in range(400)}
    slower = {f"slower {number}": change(noisy(draw, 12), noisy(draw, 12, 1 / 1.2), paired=paired) for number in range(40)}
    known = {name: one for name, one in (cases | slower).items() if one is not None}
    told = judged(known)
    assert sum(told[name] in ("slower", "faster") for name in cases) <= 4
    assert sum(told[name] == "slower" for name in slower) >= 39
    held = statistics.mean(known[name].interval.low <= 1 <= known[name].interval.high for name in cases)
    assert 0.93 <= held <= 0.99


@pytest.mark.parametrize("paired", [True, False])
def test_two_modes_of_which_both_are_met_decide_nothing(paired: bool) -> None:
    draw = random.Random(5)
    modes = [{number: draw.choice((1.0, 1.3)) * math.exp(draw.gauss(0, 0.001)) for number in range(12)} for _ in range(400)]
    known = {f"{n}": change(modes[n], modes[n + 1], paired=paired) for n in range(0, 400, 2)}
    told = judged({name: one for name, one in known.items() if one is not None})
    assert sum(verdict in ("slower", "faster") for verdict in told.values()) <= 2


def test_drift_of_the_machine_is_in_no_pair() -> None:
    draw = random.Random(7)
    drift = [math.exp(0.2 * math.sin(number)) for number in range(12)]
    old, new = ({n: value * drift[n] for n, value in noisy(draw, 12, level, 0.01).items()} for level in (1.0, 0.95))
    paired, apart = change(old, new, paired=True), change(old, new, paired=False)
    assert paired is not None
    assert apart is not None
    assert paired.interval.half_width < 0.03 < apart.interval.half_width
    assert paired.interval.high < 1 < apart.interval.high
