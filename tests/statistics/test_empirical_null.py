"""What two saved runs differ by as a whole is no change of their cases; what changed one layer is."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.statistics.changes import change
from bench.statistics.empirical_null import LEAST_CASES, widened
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


@pytest.mark.parametrize(("each", "is_wider"), [(1, False), (3, False), (4, True), (LEAST_CASES, True)])
def test_a_few_cases_do_not_tell_how_far_runs_are_apart_and_without_others_all_do(each: int, is_wider: bool) -> None:
    known, layers = evidence(3, apart=0.3, each=each)
    wide = widened(known, layers)
    # Three of each layer are nine in all, one less than it takes; four are twelve, of which eight are of other layers.
    assert (any(wide[name].p > known[name].p * (1 + 1e-6) for name in known)) == is_wider


def test_a_layer_tells_the_spread_of_the_others_and_not_its_own() -> None:
    def factors(layer: str, **changed: float) -> list[float]:
        known, layers = evidence(5, 0.05, 12, **changed)
        wide = widened(known, layers)
        found: dict[str, list[float]] = {}
        for interval in ("interval", "strict"):
            bounds = [[getattr(one, interval) for one in them.values()] for them in (known, wide)]
            widths = [[math.log(bound.high / bound.low) for bound in each] for each in bounds]
            found[interval] = [
                after / before for before, after, name in zip(*widths, known, strict=True) if layers[name] == layer
            ]
        assert found["interval"] == pytest.approx(found["strict"])
        return found["strict"]

    assert factors("csr", csr=3.0) == pytest.approx(factors("csr"))
    assert min(factors("masked", csr=3.0)) > 2 * max(factors("masked"))


def test_too_few_processes_and_equal_samples_are_no_difficulty() -> None:
    few = change({0: 1.0, 1: 1.1}, {0: 2.0, 1: 2.1}, paired=False)
    equal = change(dict.fromkeys(range(12), 1.0), dict.fromkeys(range(12), 2.0), paired=False)
    assert few is not None
    assert equal is not None
    known = {"few": few, **{f"equal-{number}": equal for number in range(20)}}
    wide = widened(known, {name: name for name in known})
    assert all(0 <= one.p <= 1 for one in wide.values())
    assert widened({}, {}) == {}
