"""An arm that went on alone after as many epochs as dense had is looked at until its end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.findings.time_to_accuracy.seeds import Seed, seed_of
from tests.findings.time_to_accuracy.test_seeds import curves, told, trained


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
