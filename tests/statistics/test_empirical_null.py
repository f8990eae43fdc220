"""What two saved runs differ by as a whole is no change of their cases; what changed one layer is."""

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.statistics.changes import NOTHING, change
from bench.statistics.empirical_null import PRIOR, PRIOR_FREEDOM, between_runs, least_told, widened
from bench.statistics.intervals import Interval
from bench.statistics.verdicts import Evidence, judged
from tests.strategies import seeds

LAYERS = ("csr", "masked", "tiled")


def sample(draw: random.Random, level: float) -> dict[int, float]:
    return {number: level * draw.lognormvariate(0, 0.05) for number in range(12)}


def evidence(seed: int, apart: float, each: int = 12, **factors: float) -> tuple[dict[str, Evidence], dict[str, str]]:
    """Cases of three layers in two runs, the runs `apart` by chance in each case, a layer changed by a factor besides."""
    draw = random.Random(seed)
    known, layers = {}, {}
    for layer in LAYERS:
        for number in range(each):
            name = f"{layer}-{number}"
            level = factors.get(layer, 1.0) * draw.lognormvariate(0, apart)
            one = change(sample(draw, 2.0), sample(draw, 2.0 * level), paired=False)
            assert one is not None
            known[name], layers[name] = one, layer
    return known, layers


def called(known: dict[str, Evidence]) -> list[str]:
    return [name for name, verdict in judged(known).items() if verdict in ("slower", "faster")]


def test_runs_that_differ_as_a_whole_have_no_case_called_different() -> None:
    wrong, bare = 0, 0
    for seed in range(40):
        known, layers = evidence(seed, apart=0.08)
        bare += bool(called(known))
        wrong += bool(called(widened(known, layers)))
    assert bare >= 30  # their processes alone would say so
    assert wrong <= 2


def test_a_layer_that_changed_is_found_as_before_and_no_other_is() -> None:
    for seed in range(20):
        known, layers = evidence(seed, apart=0.0, tiled=1 / 1.2)
        found = called(widened(known, layers))
        assert {layers[name] for name in found} == {"tiled"}
        assert len(found) >= 6  # of twelve


@given(seeds, st.sampled_from([0.0, 0.1]), st.floats(0.5, 2.0))
@settings(max_examples=30)
def test_evidence_only_becomes_less_sure_and_keeps_its_middle(seed: int, apart: float, factor: float) -> None:
    known, layers = evidence(seed, apart, csr=factor)
    for name, wide in widened(known, layers).items():
        bare = known[name]
        assert wide.interval.median == bare.interval.median
        for narrow, wider in ((bare.interval, wide.interval), (bare.strict, wide.strict)):
            assert wider.low <= narrow.low * (1 + 1e-9)
            assert wider.high >= narrow.high * (1 - 1e-9)
        assert wide.p >= bare.p * (1 - 1e-9)
        assert wide.suffices == bare.suffices
        assert bare.passes_alone or not wide.passes_alone


def drawn_apart(draw: random.Random) -> float:
    """How far apart two runs of one code are, drawn from what is known of it beforehand."""
    return PRIOR * math.sqrt(PRIOR_FREEDOM / draw.gammavariate(PRIOR_FREEDOM / 2, 2))


def few(draw: random.Random, cases: int, apart: float, slowed: float = 1.0) -> tuple[dict[str, Evidence], dict[str, str]]:
    """So many cases of three layers in turn, two runs of 8 processes `apart`, the first case slower by a factor."""
    known, layers = {}, {}
    for number in range(cases):
        level = draw.lognormvariate(0, apart) / (1 if number else slowed)
        runs = [{n: center * draw.lognormvariate(0, 0.01) for n in range(8)} for center in (2.0, 2.0 * level)]
        one = change(*runs, paired=False)
        assert one is not None
        known[str(number)], layers[str(number)] = one, LAYERS[number % len(LAYERS)]
    return known, layers


@pytest.mark.parametrize("cases", [1, 2, 4, 8, 20])
def test_of_a_hundred_comparisons_of_one_code_one_has_a_case_called_different_however_few_there_are(cases: int) -> None:
    draw = random.Random(cases)
    trials, wrong, bare = 600, 0, 0
    for _ in range(trials):
        known, layers = few(draw, cases, drawn_apart(draw))
        bare += bool(called(known))
        wrong += bool(called(widened(known, layers)))
    assert bare > trials / 4  # their processes alone would say so
    assert wrong <= trials / 100


def test_of_four_cases_the_one_that_is_slower_is_found() -> None:
    draw = random.Random(4)
    found = [called(widened(*few(draw, 4, drawn_apart(draw), slowed=1.3))) for _ in range(100)]
    assert sum(names == ["0"] for names in found) >= 80


def test_of_the_only_layer_measured_a_large_change_is_found() -> None:
    for cases in (1, 3, 9):
        known, _ = evidence(cases, apart=0.01, each=cases, csr=1 / 1.3, masked=1 / 1.3, tiled=1 / 1.3)
        assert len(called(widened(known, dict.fromkeys(known, "csr")))) >= len(known) * 0.9


def test_each_case_adds_its_part_to_what_is_known_beforehand() -> None:
    draw = random.Random(1)
    known, _ = few(draw, 100, 0.0)
    deviations = [between_runs(list(known.values())[:count]) for count in range(101)]
    assert deviations[0].deviation == pytest.approx(PRIOR)
    assert deviations[0].freedom == PRIOR_FREEDOM
    for before, after in itertools.pairwise(deviations):
        assert before.freedom <= after.freedom < before.freedom + 1
        assert after.deviation == pytest.approx(before.deviation, rel=0.1)  # no number of cases is a cliff
    assert deviations[-1].deviation < PRIOR / 2
    assert deviations[-1].reach(0.99) < deviations[0].reach(0.99) / 3
    far = between_runs(few(draw, 400, 0.2)[0].values())
    assert far.deviation == pytest.approx(0.2, rel=0.15)


def test_the_spread_is_told_by_most_cases_and_not_by_the_few_that_changed() -> None:
    plain, changed = (evidence(5, 0.02, csr=factor)[0] for factor in (1.0, 3.0))
    assert between_runs(changed.values()).deviation < 2.5 * between_runs(plain.values()).deviation


def test_a_layer_is_told_by_the_others_and_not_by_itself() -> None:
    def widths(layer: str, **changed: float) -> list[float]:
        known, layers = evidence(5, 0.05, 12, **changed)
        wide = widened(known, layers)
        return [math.log(wide[name].strict.high / wide[name].strict.low) for name in known if layers[name] == layer]

    assert widths("csr", csr=3.0) == pytest.approx(widths("csr"))
    assert min(widths("masked", csr=3.0)) > 1.5 * max(widths("masked"))


@pytest.mark.parametrize(("part", "is_told"), [(0.98, False), (1.02, True)])
def test_what_is_said_to_be_told_is_told_and_nothing_below(part: float, is_told: bool) -> None:
    def sure(ratio: float) -> dict[str, Evidence]:
        return {"a": Evidence(Interval(ratio, ratio, ratio), 1e-9, Interval(ratio, ratio, ratio), suffices=True)}

    least = least_told(sure(1.5), {"a": "csr"}) or 0.0
    assert least == pytest.approx(0.148, abs=0.001)
    for ratio in (1 / (1 + least * part), 1 + least * part):
        assert bool(called(widened(sure(ratio), {"a": "csr"}))) == is_told


def test_nothing_is_said_where_nothing_can_be_told() -> None:
    assert least_told({}, {}) is None
    assert least_told({"a": NOTHING}, {"a": "csr"}) is None


def test_a_run_against_itself_stays_sure() -> None:
    assert widened({"a": NOTHING}, {"a": "csr"}) == {"a": NOTHING}


def test_too_few_processes_and_equal_samples_are_no_difficulty() -> None:
    few = change({0: 1.0, 1: 1.1}, {0: 2.0, 1: 2.1}, paired=False)
    equal = change(dict.fromkeys(range(12), 1.0), dict.fromkeys(range(12), 2.0), paired=False)
    assert few is not None
    assert equal is not None
    known = {"few": few, **{f"equal-{number}": equal for number in range(20)}}
    wide = widened(known, {name: name for name in known})
    assert all(0 <= one.p <= 1 for one in wide.values())
    assert widened({}, {}) == {}
