"""Masks that are 2:4 both ways."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparse_models.errors import InputError
from sparse_models.masks import TWO_FOUR, Pattern, units
from sparse_models.masks.transposable import TWO_FOUR_TRANSPOSABLE, _choices
from tests.strategies import coarse, normal, seeds, sizes

MASKS = [mask for mask in itertools.product([0, 1], repeat=16)
         if all(sum(mask[4 * one : 4 * one + 4]) == 2 == sum(mask[one::4]) for one in range(4))]  # fmt: skip


def test_there_are_90_masks_of_a_tile() -> None:
    assert sorted(tuple(choice) for choice in _choices(torch.device("cpu")).int().tolist()) == sorted(MASKS)


@given(seeds, st.booleans())
def test_of_each_tile_the_mask_of_the_highest_sum_is_kept(seed: int, tied: bool) -> None:
    score = (coarse if tied else normal)(seed, 8, 12)
    kept = torch.where(TWO_FOUR_TRANSPOSABLE.from_score(score, 0.5), score, 0.0)
    tiles, held = (matrix.view(2, 4, 3, 4).transpose(1, 2).reshape(-1, 16) for matrix in (score, kept))
    sums = tiles @ torch.tensor(MASKS, dtype=tiles.dtype).t()
    torch.testing.assert_close(held.sum(1), sums.amax(1))


@pytest.mark.parametrize("pattern", [TWO_FOUR, TWO_FOUR_TRANSPOSABLE], ids=lambda pattern: pattern.name)
def test_masks_chosen_a_few_rows_at_a_time_are_those_chosen_at_once(pattern: Pattern, monkeypatch: pytest.MonkeyPatch) -> None:
    score = normal(0, 13, 10)
    at_once = pattern.from_score(score, 0.5)
    monkeypatch.setattr(units, "PIECE", 50)
    assert torch.equal(pattern.from_score(score, 0.5), at_once)


@given(sizes, sizes, seeds)
def test_masks_are_2_to_4_both_ways_at_any_size(outputs: int, inputs: int, seed: int) -> None:
    mask = TWO_FOUR_TRANSPOSABLE.from_score(normal(seed, outputs, inputs), 0.5)
    assert mask.shape == (outputs, inputs)
    assert TWO_FOUR_TRANSPOSABLE.accepts(mask)
    assert TWO_FOUR_TRANSPOSABLE.accepts(mask.t())
    if outputs % 4 == inputs % 4 == 0:
        assert int(mask.sum()) == outputs * inputs // 2


def test_a_mask_that_is_2_to_4_one_way_alone_is_refused() -> None:
    mask = torch.tensor([[True, True, False, False]] * 4)
    assert TWO_FOUR.accepts(mask)
    assert not TWO_FOUR_TRANSPOSABLE.accepts(mask)
    assert not TWO_FOUR_TRANSPOSABLE.accepts(mask.t())


def test_another_sparsity_and_nan_are_refused() -> None:
    with pytest.raises(InputError, match=r"expected sparsity 0\.5, the only one of 2:4 both ways, got 0\.8"):
        TWO_FOUR_TRANSPOSABLE.from_score(torch.ones(4, 4), 0.8)
    with pytest.raises(InputError, match="NaN"):
        TWO_FOUR_TRANSPOSABLE.from_score(torch.full((4, 4), torch.nan), 0.5)
