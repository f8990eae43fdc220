import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.statistics.intervals import SIGN_VALUES, Interval, median_interval
from bench.statistics.verdicts import difference_interval, p_value, process_interval, values_needed, verdicts
from tests.strategies import seeds

times = st.floats(1e-6, 1e3)
speedups = st.lists(st.floats(0.01, 100), min_size=2, max_size=20)


@given(st.lists(times, min_size=1, max_size=40))
def test_interval_holds_the_median_and_comes_from_the_sample(sample: list[float]) -> None:
    interval = median_interval(sample)
    assert interval.low <= interval.median <= interval.high
    assert {interval.low, interval.high} <= set(sample)
    assert interval.median == statistics.median(sample)


@given(st.lists(times, min_size=1, max_size=40), seeds)
def test_interval_does_not_depend_on_the_order(sample: list[float], seed: int) -> None:
    assert median_interval(random.Random(seed).sample(sample, len(sample))) == median_interval(sample)


@given(st.lists(times, min_size=6, max_size=40), st.floats(0.1, 10))
def test_interval_scales_with_the_sample(sample: list[float], factor: float) -> None:
    assert median_interval([value * factor for value in sample]) == pytest.approx([v * factor for v in median_interval(sample)])


def test_interval_of_known_sizes() -> None:
    # Order statistics of the 95 % sign-test interval, as tabulated: 1 and 6 of 6, 2 and 9 of 10, 6 and 15 of 20.
    for n, low, high in ((6, 1, 6), (8, 1, 8), (9, 2, 8), (10, 2, 9), (20, 6, 15)):
        assert median_interval(range(1, n + 1))[1:] == (low, high)


@given(speedups)
def test_swapping_the_arms_inverts_interval_and_verdict(sample: list[float]) -> None:
    inverse = [1 / value for value in sample]
    interval, other = process_interval(sample), process_interval(inverse)
    assert (1 / other.high, 1 / other.low) == pytest.approx((interval.low, interval.high))
    assert p_value(inverse) == pytest.approx(p_value(sample), abs=1e-9)
    mirror = {"faster": "slower", "slower": "faster"}
    [verdict], [inverted] = verdicts({"a": sample}).values(), verdicts({"a": inverse}).values()
    assert inverted == mirror.get(verdict, verdict) or math.isclose(p_value(sample), 0.01, rel_tol=1e-6)


@given(speedups)
def test_few_processes_have_an_interval_at_least_as_wide_as_what_was_seen(sample: list[float]) -> None:
    interval = process_interval(sample[: SIGN_VALUES - 1])
    assert interval.low <= min(sample[: SIGN_VALUES - 1]) * (1 + 1e-9)
    assert interval.high >= max(sample[: SIGN_VALUES - 1]) * (1 - 1e-9)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=20), st.floats(-1, 1))
def test_differences_are_bounded_as_the_logarithms_of_ratios_are_and_move_with_what_is_added(
    sample: list[float], added: float
) -> None:
    interval = difference_interval(sample)
    of_ratios = process_interval([math.exp(value) for value in sample])
    assert interval[1:] == pytest.approx([math.log(bound) for bound in of_ratios[1:]], abs=1e-9)
    assert interval.median == statistics.median(sample)
    moved = difference_interval([value + added for value in sample])
    assert moved == pytest.approx([bound + added for bound in interval], abs=1e-9)


@pytest.mark.parametrize("mean", [0.0, 0.4, 0.8])
def test_as_many_values_as_are_said_to_be_needed_mostly_suffice(mean: float) -> None:
    draw = random.Random(1)
    needed = values_needed([mean - 1, mean, mean + 1], 2.0)
    assert needed is not None

    def decided(number: int) -> float:
        samples = ([draw.gauss(mean, 1) for _ in range(number)] for _ in range(400))
        return sum(difference_interval(sample).high < 2.0 for sample in samples) / 400

    assert decided(needed) > 0.5
    assert decided(3) < 0.5


@given(st.floats(-3, 3), st.floats(0.01, 1))
def test_the_nearer_a_bound_the_more_values_are_needed_to_tell(bound: float, further: float) -> None:
    sample, away = [-1.0, 0.0, 1.0], math.copysign(further, bound)
    near, far = (values_needed(sample, one) or 101 for one in (bound, bound + away))
    assert 3 < far <= near
    assert values_needed(sample, 0.0) is None
    assert values_needed([value * 2 for value in sample], bound * 2) == values_needed(sample, bound)


def test_t_of_known_values() -> None:
    # By hand: logs -1, 0 and 1 have deviation 1; the 97.5 % quantile of t with 2 degrees of freedom is 4.3027.
    interval = process_interval([math.exp(-1), 1, math.e])
    assert math.log(interval.high) == pytest.approx(4.3027 / math.sqrt(3), rel=1e-4)


def test_trimmed_t_of_known_values() -> None:
    # Kept are 0, 1 and 2, of mean 1; moved in, the sample is 0 0 1 2 2, of deviation 1. So t = 3 / sqrt(5), and with 2 degrees
    # of freedom the two-sided p is 1 - t / sqrt(2 + t^2).
    t = 3 / math.sqrt(5)
    for ends in ((-9, 50), (-0.5, 2.5), (0, 2)):
        assert p_value([math.exp(value) for value in (1, ends[0], 0, 2, ends[1])]) == pytest.approx(1 - t / math.sqrt(2 + t**2))


@given(st.lists(st.floats(0.5, 2), min_size=8, max_size=20), seeds)
def test_verdicts_turn_round_with_the_ratio(sample: list[float], seed: int) -> None:
    opposite = {"faster": "slower", "slower": "faster", "same": "same", "undecided": "undecided"}
    shuffled = random.Random(seed).sample(sample, len(sample))
    assert verdicts({"case": [1 / value for value in shuffled]})["case"] == opposite[verdicts({"case": sample})["case"]]


def test_one_odd_process_does_not_hide_a_difference() -> None:
    assert verdicts({"odd": [0.90, 0.91, 1.7, 0.92, 0.91, 0.9, 0.89, 0.91, 0.92, 0.9, 0.91, 0.9]})["odd"] == "slower"


def test_half_width_is_that_of_the_farther_bound() -> None:
    assert Interval(2.0, 1.9, 2.2).half_width == pytest.approx(0.1)
    assert Interval(2.0, 1.6, 2.2).half_width == pytest.approx(0.25)


def test_verdicts_of_plain_cases() -> None:
    wiggle = [0.99, 1.0, 1.01, 0.995, 1.005, 1.0, 1.002, 0.998, 1.001]
    samples = {
        "faster": [2 * value for value in wiggle],
        "slower": [value / 2 for value in wiggle],
        "same": wiggle,
        "undecided": [0.5, 0.7, 0.8, 0.9, 1.1, 1.3, 1.5, 1.7, 2.0],
    }
    assert verdicts(samples) == {name: name for name in samples}


def test_a_sure_but_small_difference_is_the_same() -> None:
    assert verdicts({"case": [1.02 + number / 1e4 for number in range(12)]})["case"] == "same"


def test_one_odd_process_does_not_make_a_verdict() -> None:
    assert verdicts({"odd": [1.0, 1.001, 0.999, 1.0, 1.002, 0.998, 1.0, 1.001, 40.0]})["odd"] == "same"


def test_more_cases_ask_for_more_evidence() -> None:
    draw = random.Random(1)
    weak = [1.06, 1.01, 1.09, 1.03, 1.10, 1.05, 1.02, 1.08, 1.07]
    noise = {f"noise{number}": [math.exp(draw.gauss(0, 0.3)) for _ in range(9)] for number in range(300)}
    assert verdicts({"weak": weak})["weak"] == "faster"
    assert verdicts({"weak": weak, **noise})["weak"] == "undecided"


def process(draw: random.Random, shape: str) -> float:
    """The log of what one process says of a case whose true median is 0."""
    if shape == "normal":
        return draw.gauss(0, 0.1)
    if shape == "heavy":  # a Cauchy variable: no mean, no variance
        return max(-500.0, min(500.0, 0.05 * math.tan(math.pi * (draw.random() - 0.5))))
    if shape == "bimodal":  # as was seen: one process in four runs at another level
        return draw.gauss(0, 0.02) + (draw.choice([-0.4, 0.4]) if draw.random() < 0.25 else 0)
    if shape == "two modes":
        return draw.gauss(0, 0.02) + draw.choice([-0.2, 0.2])
    return draw.gauss(0, 0.03) + (1.0 if draw.random() < 0.05 else 0) - (1.0 if draw.random() < 0.05 else 0)


SHAPES = ["normal", "heavy", "bimodal", "two modes", "outliers"]


@pytest.mark.parametrize("n", [6, 7, 9, 12, 20])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_interval_covers_the_truth_as_stated(n: int, shape: str) -> None:
    draw = random.Random(0)
    trials = 3000
    covered = 0
    for _ in range(trials):
        interval = process_interval([math.exp(process(draw, shape)) for _ in range(n)])
        covered += interval.low <= 1 <= interval.high
    assert covered / trials >= 0.95 - 0.012  # three standard deviations of 3,000 trials


@pytest.mark.parametrize("shape", SHAPES)
def test_stopping_early_at_a_narrow_interval_leaves_it_honest(shape: str) -> None:
    draw = random.Random(0)
    trials, covered = 3000, 0
    for _ in range(trials):
        sample: list[float] = []
        while len(sample) < 9:
            sample.append(math.exp(process(draw, shape)))
            if len(sample) >= SIGN_VALUES:
                interval = process_interval(sample)
                if max(interval.high / interval.median, interval.median / interval.low) <= 1.05:
                    break
        covered += interval.low <= 1 <= interval.high
    assert covered / trials >= 0.94


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cases", [1, 10])
def test_identical_code_is_rarely_called_different(shape: str, cases: int) -> None:
    draw = random.Random(0)
    trials = 1500 if cases == 1 else 500
    wrong = 0
    for _ in range(trials):
        told = verdicts({str(case): [math.exp(process(draw, shape)) for _ in range(9)] for case in range(cases)})
        wrong += any(verdict in ("faster", "slower") for verdict in told.values())
    # Two modes of which only one is met by nine processes are past any statistic: that has a chance of 2^-8 a case.
    allowed = 0.01 + (cases * 2**-8 if shape == "two modes" else 0)
    assert wrong / trials <= allowed + 3 * math.sqrt(allowed / trials)


def test_a_slowdown_of_a_tenth_is_found_by_twelve_processes() -> None:
    draw = random.Random(0)

    def processes() -> list[float]:
        return [math.exp(draw.gauss(-math.log(1.1), 0.05)) for _ in range(12)]

    assert sum(verdicts({"case": processes()})["case"] == "slower" for _ in range(1000)) >= 900
