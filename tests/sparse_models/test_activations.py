import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sparse_models.activations import KWinners, MagnitudeThreshold
from sparse_models.errors import InputError
from tests.strategies import coarse, normal, seeds, sizes

numbers = st.builds(lambda draw, seed, batch, features: draw(seed, batch, features), st.sampled_from([normal, coarse]),
                    seeds, sizes, sizes)  # fmt: skip


@given(numbers, st.data())
def test_the_k_largest_of_each_sample_are_kept_and_no_others(x: Tensor, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, x.shape[1]))
    x = x + 10  # so that a kept number is no 0
    kept = KWinners(k)(x)
    assert ((kept != 0).sum(1) == k).all()
    assert torch.equal(kept[kept != 0], x[kept != 0])
    losers = x.masked_fill(kept != 0, -torch.inf)
    winners = x.masked_fill(kept == 0, torch.inf)
    assert (losers.amax(1) <= winners.amin(1)).all()


@given(numbers, st.data())
def test_the_gradient_passes_to_the_winners_alone(x: Tensor, data: st.DataObject) -> None:
    x = (x + 10).requires_grad_()
    kept = KWinners(data.draw(st.integers(1, x.shape[1])))(x)
    gradient = normal(0, *x.shape)
    kept.backward(gradient)
    assert x.grad is not None
    assert torch.equal(x.grad, gradient * (kept != 0))


def test_samples_are_along_all_but_the_last_dimension_and_nan_is_seen() -> None:
    x = normal(0, 2, 3, 5)
    assert torch.equal(KWinners(2)(x), KWinners(2)(x.reshape(6, 5)).reshape(2, 3, 5))
    x[0, 0, 0] = torch.nan
    assert KWinners(1)(x)[0, 0, 0].isnan()


def test_winners_that_there_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="expected at least 1 winner, got 0"):
        KWinners(0)
    with pytest.raises(InputError, match=r"expected at least 4 features, got a shape of \[2, 3\]"):
        KWinners(4)(torch.zeros(2, 3))


@given(numbers, st.floats(0, 1))
def test_a_threshold_sets_at_least_its_share_to_zero_and_no_more_than_it_must(x: Tensor, share: float) -> None:
    module = MagnitudeThreshold.for_share(x, share)
    kept = module(x)
    assert (kept == 0).sum() >= share * x.numel()
    assert torch.equal(kept[kept != 0], x[kept != 0])
    if float(module.threshold) > 0:
        assert (x.abs() < module.threshold).sum() <= share * x.numel()
    assert torch.equal(MagnitudeThreshold()(x), x)


def test_a_threshold_lets_nan_be_seen_and_what_it_cannot_be_is_refused() -> None:
    assert MagnitudeThreshold(1.0)(torch.tensor([torch.nan, 2.0, 1.0])).tolist()[1:] == [2.0, 0.0]
    assert MagnitudeThreshold(1.0)(torch.tensor([torch.nan])).isnan().all()
    with pytest.raises(InputError, match="a threshold of at least 0, got -1"):
        MagnitudeThreshold(-1.0)
    with pytest.raises(InputError, match="a share from 0 to 1"):
        MagnitudeThreshold.for_share(torch.zeros(3), 1.5)
