"""An arm that is through before dense goes on alone until dense's time is over, and is looked at until then."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.engine.pairing import Plan, race
from bench.findings.time_to_accuracy.seeds import Seed, seed_of
from tests.engine.test_pairing import Clock, undisturbed
from tests.findings.test_time_to_accuracy import curves, told, trained

__all__ = ["undisturbed"]  # a fixture


@pytest.mark.parametrize(("seconds", "calls"), [(1, 3), (1.5, 1), (2, 0), (3, 0), (0.25, 9), (0, 9)])
def test_the_candidate_goes_on_alone_until_the_reference_s_time_is_over(seconds: float, calls: int) -> None:
    clock = Clock()
    plan = Plan(loops=1, dense_loops=1, pairs=3, after=clock.work("|", 99), beyond=9)
    pairs = race(clock.work("c", seconds), clock.work("d", 2), "cpu", plan, clock)
    assert clock.log == "dc|cd|dc|" + "c|" * calls
    assert (pairs.seconds, pairs.dense_seconds, pairs.later) == ([seconds] * 3, [2] * 3, [seconds] * calls)
    assert pairs.timed == 6 + seconds * (3 + calls)
    assert pairs.later_waited == [0] * calls


@given(curves(), curves(), st.data())
def test_an_arm_that_went_on_is_looked_at_until_its_end(
    own: tuple[list[float], list[float]], dense: tuple[list[float], list[float]], data: st.DataObject
) -> None:
    split = data.draw(st.integers(1, len(own[0])))
    parts = [(series[:split], series[split:]) for series in own]
    later = dict(zip(("later_epoch_accuracies", "later_epoch_seconds"), (part[1] for part in parts), strict=True))
    flops = 1e9 * split / len(own[0])  # those of as many epochs as dense had are what a row tells
    shared = trained((parts[0][0], parts[1][0]), dense, **later, flops_counted=flops)
    assert flattened(seed_of(shared)) == pytest.approx(flattened(told(own, dense, flops_counted=1e9)))


def flattened(seed: Seed | None) -> list[float]:
    assert seed
    bounds = [bound for taken in (seed.own, seed.dense) for bound in taken]
    return [seed.target, seed.when_dense_is_there, seed.when_dense_ends, *(end for bound in bounds for end in bound)]


def test_a_schedule_is_over_before_an_arm_goes_on() -> None:
    whole = trained(([0.1] * 4, [1.0] * 4), ([0.9] * 4, [3.0] * 4), update="gmp", flops_counted=4e9)
    gone_on = whole | {"later_epoch_accuracies": [0.1] * 4, "later_epoch_seconds": [1.0] * 4}
    first, last = (seed.own.flops.low for one in (whole, gone_on) if (seed := seed_of(one)))
    assert pytest.approx(first) == 4e9
    # Four fifths of the weights go by a cubic schedule in three quarters of the epochs: 0.35 are there on average, then 0.2.
    assert last - first == pytest.approx(4e9 * 0.2 / 0.35, rel=1e-3)
