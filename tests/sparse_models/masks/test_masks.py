import math
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sparse_models.errors import InputError
from sparse_models.masks import (
    DISTRIBUTIONS,
    FULL,
    UNSTRUCTURED,
    check_sparsity,
    count_kept,
    magnitude_mask,
    random_mask,
    random_score,
    skewed_score,
    top_k_mask,
)
from sparse_models.masks import scores as scores_module
from sparse_models.masks import top_k as top_k_module
from tests.strategies import coarse, generator, masks, normal, seeds, shapes, sparsities

layer_shapes = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=5)


@given(st.integers(0, 10**9), sparsities)
def test_count_is_the_nearest_whole_number(size: int, sparsity: float) -> None:
    assert abs(count_kept(size, sparsity) - size * (1 - Fraction(sparsity))) <= Fraction(1, 2) + Fraction(size, 10**15)


@given(st.integers(0, 10**9))
def test_count_is_everything_at_0_and_nothing_at_1(size: int) -> None:
    assert (count_kept(size, 0), count_kept(size, 1)) == (size, 0)


@given(shapes, sparsities, seeds)
def test_random_mask_is_of_exactly_the_sparsity(shape: tuple[int, int], sparsity: float, seed: int) -> None:
    mask = random_mask(shape, sparsity, generator(seed))
    assert (mask.dtype, tuple(mask.shape), int(mask.sum())) == (torch.bool, shape, count_kept(math.prod(shape), sparsity))


def test_sparsity_is_the_fraction_of_zeros_and_true_is_kept() -> None:
    mask = random_mask((10, 10), 0.8, generator(0))
    assert int(mask.sum()) == 20
    assert int((~mask).sum()) == 80


@given(shapes, sparsities, st.floats(0.01, 2), seeds)
def test_a_skewed_mask_is_of_exactly_the_sparsity(shape: tuple[int, int], sparsity: float, skew: float, seed: int) -> None:
    mask = UNSTRUCTURED.from_score(skewed_score(shape, sparsity, skew, generator(seed)), sparsity)
    assert int(mask.sum()) == count_kept(mask.numel(), sparsity)


@pytest.mark.parametrize("skew", [0.25, 0.5])
@pytest.mark.parametrize("sparsity", [0.8, 0.95])
def test_rows_of_a_skewed_mask_vary_as_asked(sparsity: float, skew: float) -> None:
    """Beside what chance alone makes of as many weights."""
    mask = UNSTRUCTURED.from_score(skewed_score((2000, 2000), sparsity, skew, generator(0)), sparsity)
    rows, columns = (mask.sum(side).double() for side in (1, 0))
    by_chance = math.sqrt(sparsity / (2000 * (1 - sparsity)))
    assert float(rows.std() / rows.mean()) == pytest.approx(math.hypot(skew, by_chance), rel=0.15)
    assert float(columns.std() / columns.mean()) == pytest.approx(by_chance, rel=0.15)


def test_random_mask_is_uniform_over_positions() -> None:
    counts = sum(random_mask((4, 5), 0.75, generator(seed)).double() for seed in range(4000))
    # 4000 draws of 1 in 4: mean 1000, standard deviation 27; five of them are never reached by chance in 20 places.
    assert isinstance(counts, torch.Tensor)
    assert float((counts - 1000).abs().max()) < 5 * math.sqrt(4000 * 0.25 * 0.75)


@given(st.tuples(st.integers(1, 90), st.integers(1, 90)), sparsities, seeds, st.booleans())
def test_the_highest_of_many_scores_are_kept_without_sorting_them_all(
    shape: tuple[int, int], sparsity: float, seed: int, tied: bool
) -> None:
    score = coarse(seed, *shape) if tied else normal(seed, *shape)
    kept = count_kept(score.numel(), sparsity)
    with pytest.MonkeyPatch.context() as patch:
        for name, number in (("MANY", 1), ("LOOKED_AT", 300), ("MARGIN", 1)):
            patch.setattr(top_k_module, name, number)
        mask = top_k_mask(score, kept)
    assert (mask.dtype, mask.shape, int(mask.sum())) == (torch.bool, score.shape, kept)
    assert not kept or kept == mask.numel() or score[mask].min() >= score[~mask].max()


def test_many_random_scores_need_no_sorting_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    topk = torch.topk

    def noted(score: Tensor, *arguments: Any, **options: Any) -> Any:
        chosen.append(len(score))
        return topk(score, *arguments, **options)

    monkeypatch.setattr(top_k_module, "MANY", 2**20)
    monkeypatch.setattr(torch, "topk", noted)
    mask = random_mask((1024, 1024), 0.9, generator(0))
    monkeypatch.undo()
    assert torch.equal(mask, random_mask((1024, 1024), 0.9, generator(0)))
    assert chosen[0] < 2**20 / 8


@pytest.mark.parametrize("skew", [0.0, 0.5])
def test_scores_are_the_same_however_many_are_drawn_at_once(skew: float, monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn() -> Tensor:
        if skew:
            return skewed_score((50, 30), 0.9, skew, generator(0))
        return random_score((50, 30), generator(0))

    whole = drawn()
    monkeypatch.setattr(scores_module, "PIECE", 100)
    assert torch.equal(drawn(), whole)


@given(shapes, sparsities, seeds)
def test_magnitude_mask_keeps_the_largest_by_sorted_lists(shape: tuple[int, int], sparsity: float, seed: int) -> None:
    weight = normal(seed, *shape)
    mask = magnitude_mask(weight, sparsity)
    kept = sorted(weight[mask].abs().tolist())
    assert kept == sorted(weight.abs().flatten().tolist())[math.prod(shape) - len(kept) :]
    assert len(kept) == count_kept(math.prod(shape), sparsity)


@given(st.data(), shapes, seeds)
def test_ties_never_change_the_number_kept(data: st.DataObject, shape: tuple[int, int], seed: int) -> None:
    kept = data.draw(st.integers(0, math.prod(shape)))
    score = coarse(seed, *shape)
    mask = top_k_mask(score, kept)
    assert int(mask.sum()) == kept
    assert sorted(score[mask].tolist()) == sorted(score.flatten().tolist())[math.prod(shape) - kept :]


@given(st.data(), masks(), seeds)
def test_top_k_stays_among_what_is_allowed(data: st.DataObject, among: torch.Tensor, seed: int) -> None:
    kept = data.draw(st.integers(0, int(among.sum())))
    mask = top_k_mask(coarse(seed, *among.shape), kept, among=among)
    assert int(mask.sum()) == kept
    assert not (mask & ~among).any()


@pytest.mark.parametrize("sparsity", [-0.1, 1.2, math.nan, math.inf, "a", None, 80])
def test_bad_sparsity_is_refused_in_one_sentence(sparsity: float) -> None:
    with pytest.raises(InputError, match=rf"expected a sparsity .* got {sparsity}; "):
        check_sparsity(sparsity)


def test_nan_scores_are_refused() -> None:
    with pytest.raises(InputError, match="without NaN"):
        top_k_mask(torch.tensor([1.0, math.nan]), 1)


@pytest.mark.parametrize("kept", [-1, 3])
def test_more_than_there_are_is_refused(kept: int) -> None:
    with pytest.raises(InputError, match=f"between 0 and 2 weights, got {kept}"):
        top_k_mask(torch.ones(2), kept)


@pytest.mark.parametrize("name", [name for name in DISTRIBUTIONS if name != "first_dense"])
@given(layer_shapes, sparsities)
def test_distribution_is_within_one_non_zero_per_layer_of_the_target(
    name: str, shapes: list[tuple[int, int]], sparsity: float
) -> None:
    sizes = [math.prod(shape) for shape in shapes]
    kept = [count_kept(size, level) for size, level in zip(sizes, DISTRIBUTIONS[name](shapes, sparsity), strict=True)]
    assert abs(sum(kept) - (1 - sparsity) * sum(sizes)) <= len(shapes)
    assert all(0 <= count <= size for count, size in zip(kept, sizes, strict=True))


@given(layer_shapes, sparsities)
def test_the_first_layer_is_dense_where_asked_for_and_the_others_are_uniform(
    shapes: list[tuple[int, int]], sparsity: float
) -> None:
    assert DISTRIBUTIONS["first_dense"](shapes, sparsity) == [0.0, *DISTRIBUTIONS["uniform"](shapes, sparsity)[1:]]


@pytest.mark.parametrize("name", ["er", "erk"])
@given(layer_shapes, sparsities)
def test_erdos_renyi_density_is_proportional_below_1(name: str, shapes: list[tuple[int, int]], sparsity: float) -> None:
    densities = [1 - level for level in DISTRIBUTIONS[name](shapes, sparsity)]
    scales = [
        density / (sum(shape) / math.prod(shape))
        for density, shape in zip(densities, shapes, strict=True)
        if density < 1 - 1e-9
    ]
    assert all(scale == pytest.approx(scales[0], abs=1e-9) for scale in scales)


@given(layer_shapes, st.floats(0.01, 0.99))
def test_a_layer_kept_whole_would_have_passed_density_1(shapes: list[tuple[int, int]], sparsity: float) -> None:
    densities = [1 - level for level in DISTRIBUTIONS["erk"](shapes, sparsity)]
    raw = [sum(shape) / math.prod(shape) for shape in shapes]
    below = [density / r for density, r in zip(densities, raw, strict=True) if density < 1 - 1e-9]
    for density, r in zip(densities, raw, strict=True):
        if density >= 1 - 1e-9 and below:
            assert below[0] * r >= 1 - 1e-6


def test_er_ignores_kernel_sizes_and_erk_does_not() -> None:
    shapes = [(32, 16, 3, 3), (32, 16, 1, 1)]
    er, erk = (DISTRIBUTIONS[name](shapes, 0.9) for name in ("er", "erk"))
    assert er[0] == pytest.approx(er[1])
    assert erk[0] > erk[1]


@given(masks())
def test_patterns_accept_their_own_masks(mask: torch.Tensor) -> None:
    assert UNSTRUCTURED.accepts(mask)
    assert FULL.accepts(mask) == bool(mask.all())


def test_a_full_layer_refuses_a_sparsity() -> None:
    with pytest.raises(InputError, match=r"expected sparsity 0 .* got 0.5"):
        FULL.from_score(torch.ones(2, 2), 0.5)
