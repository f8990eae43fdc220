"""What dense may have gained by another way of running it is no change of a case."""

import random
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.comparisons.comparison import compare
from bench.runs.saved import Measured, Run
from bench.statistics.samples import Sample
from tests.comparisons.test_comparison import noisy, one_case
from tests.helpers.rows import saved_row, saved_run
from tests.strategies import seeds

LAYOUTS = ("batch-major", "feature-major", "compiled")


def in_two_ways(seed: int, factor: float, gains: tuple[float | None, float | None], **how: Any) -> Any:
    """What became of a case whose speed-up changed by a factor, and whose dense was run in one way and then in another."""
    draw = random.Random(seed)
    first, second = draw.sample(LAYOUTS, 2)
    samples = [noisy(draw, level, deviation=0.005) for level in (1.0, factor)]
    old, new = (
        {"speedups": sample, "dense_layout": way, "dense_layout_gain": gain}
        for sample, way, gain in zip(samples, (first, second), gains, strict=True)
    )
    return one_case(old, new, **how)


@given(seeds, st.floats(1.03, 1.3), st.booleans(), st.booleans())
def test_as_much_as_dense_gained_by_another_way_is_no_change_of_the_case(
    seed: int, gain: float, falls: bool, paired: bool
) -> None:
    for gains in ((1.0, gain), (gain, 1.0)):
        within = in_two_ways(seed, 1 / (gain - 0.02) if falls else gain - 0.02, gains, paired=paired)
        assert within.verdict == "undecided"
        factor = 1 / (gain * 1.2) if falls else gain * 1.2
        beyond = in_two_ways(seed, factor, gains, paired=paired)
        assert beyond.verdict == ("slower" if falls else "faster")
        assert beyond.evidence.interval.median == pytest.approx(1 / 1.2 if falls else 1.2, rel=0.02)
        assert re.search(rf"dense was [\w-]+ and is [\w-]+: {gain - 1:.0%} is taken off for that", beyond.note)


@given(seeds, st.sampled_from([(None, None), (1.0, None), (None, 1.1)]), st.floats(0.1, 10.0))
def test_where_the_gain_of_another_way_is_not_known_nothing_is_decided(seed: int, gains: Any, factor: float) -> None:
    assert in_two_ways(seed, factor, gains).verdict == "undecided"


def test_a_layer_whose_reference_runs_in_another_way_is_judged_together_less_that() -> None:
    def run(level: float, **fields: Any) -> Run:
        draw = random.Random(f"{level}{fields}")
        return saved_run({f"{s}": saved_row(sparsity=s, speedups=noisy(draw, level), **fields) for s in (0.5, 0.8, 0.9)})

    old = run(1.0, dense_layout="batch-major", dense_layout_gain=1.0)
    for level, left in ((1.1, 1), (1.1 * 1.2, 1.2), (1 / 1.1, 1), (1 / 1.1 / 1.2, 1 / 1.2)):
        [group] = compare(old, run(level, dense_layout="feature-major", dense_layout_gain=1.1), paired=True).groups
        assert group.evidence.interval.median == pytest.approx(left, rel=0.02)
        assert (group.verdict in ("slower", "faster")) == (left != 1)


def test_a_gain_that_is_not_known_is_said() -> None:
    assert in_two_ways(0, 1.2, (None, 1.1)).note.endswith("which may be all of it")


def test_narrow_dense_is_judged_by_its_speed_up_and_dense_itself_by_the_clock() -> None:
    for model, verdict in (("narrow", "same"), ("dense", "slower")):
        fields = {"layer": "dense", "model": model}
        slow = fields | {"process_seconds": [1.2e-3 + number * 1e-6 for number in range(8)]}
        assert one_case(fields, slow, paired=True).verdict == verdict


def test_a_change_of_dense_itself_is_not_put_down_to_dense() -> None:
    dense = {"layer": "dense", "model": "dense"}
    slow = dense | {"process_seconds": [1.2e-3 + n * 1e-6 for n in range(8)], "process_dense_seconds": [1e-3] * 8}
    told = one_case(dense, slow, paired=True)
    assert (told.verdict, told.note) == ("slower", "")


def test_a_run_that_saved_no_processes_is_told_so() -> None:
    run = saved_run({"a": saved_row()})
    none = Measured(run.cases["a"].row, *[Sample([], [])] * 3)
    [told] = compare(run._replace(cases={"a": none}), run).changes
    assert (told.verdict, told.note) == ("undecided", "what each process said was not saved")
