"""What is written by hand, since scipy.stats takes long to import, says what scipy.stats says."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bench.statistics.changes import _bound, _mann_whitney, change, shift
from bench.statistics.intervals import median_interval
from bench.statistics.proportions import rate
from bench.statistics.verdicts import TRIMMED, p_value, process_interval

values = st.integers(-300, 300).map(lambda hundredth: math.exp(hundredth / 100))
samples = st.lists(values, min_size=2, max_size=14, unique=True)
confidences = st.sampled_from([0.8, 0.95, 0.99])


@given(samples, samples)
def test_a_change_between_two_samples_has_the_p_of_yuens_test(old: list[float], new: list[float]) -> None:
    known = change(dict(enumerate(old)), dict(enumerate(new)), paired=False)
    assert known is not None
    if old != new:
        expected = stats.ttest_ind(np.log(old), np.log(new), equal_var=False, trim=1 / TRIMMED)
        assert known.p == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)


@given(st.sampled_from([5, 10, 15, 20]), st.data())
def test_a_ratio_over_processes_has_the_p_of_the_interval_around_its_trimmed_mean(count: int, data: st.DataObject) -> None:
    sample = data.draw(st.lists(values, min_size=count, max_size=count, unique=True))
    p = p_value(sample)
    if p > 1e-6:  # the interval of that confidence ends where nothing would have changed
        ends = stats.mstats.trimmed_mean_ci(np.log(sample), limits=(1 / TRIMMED, 1 / TRIMMED), alpha=p)
        assert min(abs(end) for end in ends) == pytest.approx(0, abs=1e-6)


@given(st.lists(values, min_size=2, max_size=4, unique=True))
def test_few_processes_have_students_p(sample: list[float]) -> None:
    assert p_value(sample) == pytest.approx(stats.ttest_1samp(np.log(sample), 0).pvalue, rel=1e-6)


@given(st.lists(values, min_size=2, max_size=5, unique=True), confidences)
def test_few_processes_have_students_interval_around_all(sample: list[float], confidence: float) -> None:
    logs = np.log(sample)
    low, high = stats.t.interval(confidence, len(logs) - 1, logs.mean(), stats.sem(logs))
    expected = [math.exp(min(low, *logs)), math.exp(max(high, *logs))]
    assert list(process_interval(sample, confidence)[1:]) == pytest.approx(expected, rel=1e-6)


@given(st.lists(values, min_size=6, max_size=40, unique=True), confidences)
def test_a_median_is_bounded_by_the_quantile_test(sample: list[float], confidence: float) -> None:
    ordered = sorted(sample)
    interval = median_interval(sample, confidence)
    k = ordered.index(interval.low) + 1
    assert interval.high == ordered[-k]
    if 2 * stats.binom.cdf(0, len(sample), 0.5) <= 1 - confidence:  # else it is all values seen
        outside = 2 * stats.binom.cdf([k - 1, k], len(sample), 0.5)
        assert outside[0] <= 1 - confidence < outside[1]
        between = [(a + b) / 2 for a, b in ((0, interval.low), (interval.low, ordered[k]))]
        rejected = [stats.quantile_test(ordered, q=value, p=0.5).pvalue <= 1 - confidence for value in between]
        assert rejected == [True, False]


@pytest.mark.parametrize(("olds", "news"), [(3, 3), (4, 7), (5, 5), (8, 12)])
def test_orders_of_two_samples_are_counted_as_by_the_exact_mann_whitney_test(olds: int, news: int) -> None:
    counts = _mann_whitney(olds, news)
    least = math.comb(olds + news, olds)
    assert sum(counts) == least
    # Samples of which a chosen number of pairs is reversed: the first new value is moved down past so many of the old.
    for reversals in range(olds + 1):
        old = list(range(olds))
        new = [olds - reversals - 0.5, *range(olds, olds + news - 1)]
        expected = stats.mannwhitneyu(old, new, alternative="less", method="exact").pvalue
        assert sum(counts[: reversals + 1]) / least == pytest.approx(expected)


@pytest.mark.parametrize("confidence", [0.95, 0.99])
@pytest.mark.parametrize(("olds", "news"), [(5, 5), (6, 9), (12, 12)])
def test_a_shift_is_bounded_where_the_exact_mann_whitney_test_turns(olds: int, news: int, confidence: float) -> None:
    draw = np.random.default_rng(olds * news)
    old, new = (sorted(draw.normal(size=count)) for count in (olds, news))
    interval = shift(old, new, confidence)
    for bound in (interval.low, interval.high):
        p = [stats.mannwhitneyu(old, np.array(new) - math.log(bound) - side, method="exact").pvalue for side in (-1e-9, 1e-9)]
        assert min(p) <= 1 - confidence < max(p)
    assert _bound(olds, news, confidence) > 0


@given(st.integers(0, 60), st.integers(0, 60), confidences)
def test_a_rate_has_the_exact_interval(hits: int, misses: int, confidence: float) -> None:
    if hits + misses:
        found = rate(hits, hits + misses, confidence)
        expected = stats.binomtest(hits, hits + misses).proportion_ci(confidence, method="exact")
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
