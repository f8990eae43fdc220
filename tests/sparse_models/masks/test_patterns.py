"""Patterns: their masks from scores, their checks, and how update rules move them."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sparse_models.errors import InputError
from sparse_models.masks import DISTRIBUTIONS, FAN_IN, FULL, NEURONS, TWO_FOUR, UNSTRUCTURED, Pattern, block, count_kept, n_of_m
from sparse_models.masks.units import Unit, summed, units_of, weights_of
from sparse_models.updates import UPDATES, prune_and_regrow
from tests.strategies import coarse, fractions, generator, masks, normal, seeds, sizes, sparsities

PATTERNS = [UNSTRUCTURED, FULL, block(1, 1), block(2, 2), block(3, 1), block(2, 5), TWO_FOUR, n_of_m(1, 3), FAN_IN, NEURONS]
MOVING = [pattern for pattern in PATTERNS if pattern.moves]
wide = st.tuples(st.integers(1, 20), st.integers(1, 20))


def named(patterns: list[Pattern]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("pattern", patterns, ids=lambda pattern: pattern.name)


def made(pattern: Pattern, shape: tuple[int, int], sparsity: float, seed: int, tied: bool = False) -> Tensor:
    score = coarse(seed, *shape) if tied else normal(seed, *shape)
    return pattern.from_score(score, pattern.nearest(sparsity))


@named(PATTERNS)
@given(wide, sparsities, seeds, st.booleans())
def test_a_pattern_accepts_what_it_makes(
    pattern: Pattern, shape: tuple[int, int], sparsity: float, seed: int, tied: bool
) -> None:
    mask = made(pattern, shape, sparsity, seed, tied)
    assert (mask.dtype, tuple(mask.shape)) == (torch.bool, shape)
    assert pattern.accepts(mask)


@named(PATTERNS)
@given(masks())
def test_a_mask_is_accepted_by_the_definition_of_its_pattern(pattern: Pattern, mask: Tensor) -> None:
    rows = mask.tolist()
    high, wide = pattern.unit
    if pattern is FULL:
        defined = all(all(row) for row in rows)
    elif pattern is FAN_IN:
        defined = len({sum(row) for row in rows} - {0}) <= 1
    elif pattern is NEURONS:
        columns = [any(row[place] for row in rows) for place in range(len(rows[0]))]
        defined = all(row == [any(row) and column for column in columns] for row in rows)
    elif pattern.group is not None:
        most = round((1 - pattern.nearest(0)) * pattern.group)
        defined = all(sum(row[at : at + pattern.group]) <= most for row in rows for at in range(0, len(row), pattern.group))
    else:
        blocks: dict[tuple[int, int], set[bool]] = {}
        for i, row in enumerate(rows):
            for j, kept in enumerate(row):
                blocks.setdefault((i // high, j // wide), set()).add(kept)
        defined = all(len(kept) == 1 for kept in blocks.values())
    assert pattern.accepts(mask) == defined


@given(wide, sparsities, seeds)
def test_so_many_units_are_kept(shape: tuple[int, int], sparsity: float, seed: int) -> None:
    for pattern in (UNSTRUCTURED, block(2, 2), block(3, 1), block(2, 5)):
        units = units_of(made(pattern, shape, sparsity, seed), pattern.unit)
        assert int(units.sum()) == count_kept(units.numel(), sparsity)
    assert made(FAN_IN, shape, sparsity, seed).sum(1).tolist() == [count_kept(shape[1], sparsity)] * shape[0]
    for row in made(TWO_FOUR, shape, 0.5, seed).tolist():
        assert all(sum(row[at : at + 4]) == min(2, len(row) - at) for at in range(0, len(row), 4))
    kept = made(NEURONS, shape, sparsity, seed)
    share = math.sqrt(1 - sparsity)
    sides = [max(1, round(size * share)) if sparsity < 1 else 0 for size in shape]
    assert [int(kept.any(1).sum()), int(kept.any(0).sum())] == sides


@given(wide, st.tuples(st.integers(1, 5), st.integers(1, 5)), seeds)
def test_scores_of_blocks_are_summed_as_lists_are(shape: tuple[int, int], unit: tuple[int, int], seed: int) -> None:
    score = normal(seed, *shape)
    found, mean, numbers = summed(score, unit), float(score.mean()), score.tolist()
    is_whole = shape[0] % unit[0] == 0 and shape[1] % unit[1] == 0
    for i, row in enumerate(found.tolist()):
        for j, its in enumerate(row):
            held = [one for line in numbers[i * unit[0] : (i + 1) * unit[0]] for one in line[j * unit[1] : (j + 1) * unit[1]]]
            # At edges, by how far the sum is from what so many are on average.
            expected = sum(held) if is_whole or unit == (1, 1) else (sum(held) - mean * len(held)) / math.sqrt(len(held))
            assert its == pytest.approx(expected, abs=1e-9)


@given(st.sampled_from([torch.bfloat16, torch.float16, torch.int32]), wide, st.tuples(st.integers(2, 5), st.integers(1, 5)))
def test_scores_of_few_bits_are_summed_as_what_they_stand_for(dtype: torch.dtype, shape: tuple[int, int], unit: Unit) -> None:
    score, mask = (9 * normal(0, *shape)).to(dtype), normal(1, *shape) > 0
    exact = torch.float32 if score.is_floating_point() else torch.float64
    for among in (None, mask):
        torch.testing.assert_close(summed(score, unit, among), summed(score.to(exact), unit, among))


def test_blocks_at_the_edges_are_as_likely_as_others() -> None:
    pattern, counts, draws = block(4, 4), torch.zeros(3, 3), 3000
    for seed in range(draws):
        mask = pattern.from_score(torch.rand(9, 10, generator=generator(seed)), 2 / 3)
        counts += units_of(mask, pattern.unit)
    # Sums of 16, 8, 4 and 2 uniform numbers are not of one form: within 15 %, where means would be off by a half.
    assert float((counts / draws - 1 / 3).abs().max()) < 0.05


@named(MOVING)
@given(wide, sparsities, seeds, fractions, st.booleans())
def test_update_rules_stay_in_the_pattern_and_keep_their_number(
    pattern: Pattern, shape: tuple[int, int], sparsity: float, seed: int, fraction: float, tied: bool
) -> None:
    mask = made(pattern, shape, sparsity, seed)
    if pattern is FAN_IN:
        mask[seed % shape[0]] = False  # ablated
    numbers = coarse if tied else normal
    weight, grad = numbers(seed + 1, *shape) * mask, numbers(seed + 2, *shape)
    for name in ("rigl", "set"):
        moved = UPDATES[name](mask, weight, grad, fraction, generator(seed), pattern=pattern)
        assert pattern.accepts(moved)
        before, after = units_of(mask, pattern.unit), units_of(moved, pattern.unit)
        assert int(after.sum()) == int(before.sum())
        if pattern.group is not None:  # each group keeps what it had
            size = shape[1] if pattern is FAN_IN else pattern.group
            for old, new in zip(before.tolist(), after.tolist(), strict=True):
                assert all(sum(old[at : at + size]) == sum(new[at : at + size]) for at in range(0, shape[1], size))


@given(sizes, sizes, st.sampled_from([(2, 3), (3, 1)]), sparsities, seeds, fractions)
def test_blocks_move_as_their_summed_scores_say(
    rows: int, columns: int, unit: tuple[int, int], sparsity: float, seed: int, fraction: float
) -> None:
    shape, pattern = (rows * unit[0], columns * unit[1]), block(*unit)
    mask = made(pattern, shape, sparsity, seed)
    weight, grad = normal(seed + 1, *shape) * mask, normal(seed + 2, *shape)
    moved = UPDATES["rigl"](mask, weight, grad, fraction, pattern=pattern)
    by_block = prune_and_regrow(units_of(mask, unit), summed(weight.abs(), unit), summed(grad.abs(), unit), fraction)
    assert torch.equal(moved, weights_of(by_block, unit, mask.shape))


@given(wide, seeds, fractions, st.booleans())
def test_in_groups_the_smallest_go_and_each_group_grows_its_largest(
    shape: tuple[int, int], seed: int, fraction: float, returning: bool
) -> None:
    mask, keep, grow = made(TWO_FOUR, shape, 0.5, seed), normal(seed + 1, *shape).abs(), normal(seed + 2, *shape)
    moved = prune_and_regrow(mask, keep, grow, fraction, pattern=TWO_FOUR, regrow_dropped=returning)
    kept = int(mask.sum())
    going = kept - count_kept(kept, fraction)
    going = going if returning else min(going, mask.numel() - kept)
    held = sorted((float(keep[i, j]), i, j) for i, j in mask.nonzero().tolist())
    dropped = {(i, j) for _, i, j in held[:going]}
    for i in range(shape[0]):
        for at in range(0, shape[1], 4):
            group = [(i, j) for j in range(at, min(at + 4, shape[1]))]
            survivors = [place for place in group if mask[place] and place not in dropped]
            lost = [place for place in group if place in dropped]
            free = [place for place in group if place not in survivors and (returning or place not in lost)]
            order = sorted(free, key=lambda place: -float(grow[place]))
            back = sorted(set(lost) - set(free), key=lambda place: -float(grow[place]))
            expected = {*survivors, *[*order, *back][: len(lost)]}
            assert {place for place in group if moved[place]} == expected


@named([FULL, NEURONS])
def test_a_pattern_whose_masks_do_not_move_says_so(pattern: Pattern) -> None:
    mask = torch.ones(4, 4, dtype=torch.bool)
    with pytest.raises(InputError, match=f"expected a pattern whose masks move, got '{pattern.name}'; train it with a static"):
        UPDATES["set"](mask, torch.ones(4, 4), None, 0.3, pattern=pattern)
    assert torch.equal(UPDATES["static"](mask, torch.ones(4, 4), None, 0.0, pattern=pattern), mask)


@given(st.lists(st.integers(1, 30), min_size=3, max_size=5), st.floats(0, 1), st.sampled_from([*DISTRIBUTIONS]), seeds)
def test_neurons_of_a_network_go_with_their_row_and_their_column(
    chain: list[int], sparsity: float, distribution: str, seed: int
) -> None:
    shapes = [(after, before) for before, after in pairwise(chain)]
    shared = DISTRIBUTIONS[distribution](shapes, sparsity)
    found = NEURONS.masks([normal(seed + number, *shape).abs() for number, shape in enumerate(shapes)], shared)
    assert all(NEURONS.accepts(mask) for mask in found)
    wanted = sum(count_kept(math.prod(shape), each) for shape, each in zip(shapes, shared, strict=True))
    held = sum(int(mask.sum()) for mask in found)
    hidden = [int(mask.any(1).sum()) for mask in found[:-1]]
    assert held <= wanted or set(hidden) & {0, 1}
    if held:
        assert bool(found[0].any(0).all())  # inputs and outputs stay
        assert bool(found[-1].any(1).all())
        for before, after in pairwise(found):
            assert torch.equal(before.any(1), after.any(0))
    if distribution == "uniform" and held and min(hidden) > 1:  # one more in each layer that lacks any is too many
        more = [size + (size < whole) for size, whole in zip(hidden, chain[1:-1], strict=True)]
        assert hidden == chain[1:-1] or sum(a * b for a, b in pairwise([chain[0], *more, chain[-1]])) > wanted


def test_the_neurons_that_go_are_those_of_the_lowest_scores() -> None:
    first, second = torch.tensor([[1.0], [3.0], [2.0], [0.5]]), torch.ones(2, 4)
    one, other = NEURONS.masks([first, second], [0.5, 0.5])
    assert one.squeeze(1).tolist() == [False, True, True, False]
    assert other.tolist() == [[False, True, True, False]] * 2


@pytest.mark.parametrize("sparsity", [0.0, 0.4, 0.8, 1.0])
def test_a_pattern_with_one_sparsity_refuses_others(sparsity: float) -> None:
    with pytest.raises(InputError, match=rf"expected sparsity 0.5, the only one of 2:4, got {sparsity:g}; choose another"):
        TWO_FOUR.from_score(torch.ones(4, 4), sparsity)


@pytest.mark.parametrize(("n", "m"), [(0, 4), (4, 4), (5, 4), (-1, 2)])
def test_n_of_m_must_leave_something_out(n: int, m: int) -> None:
    with pytest.raises(InputError, match=f"got {n}:{m}; for example 2:4"):
        n_of_m(n, m)


def test_blocks_without_weights_are_refused() -> None:
    with pytest.raises(InputError, match="expected blocks of at least 1 x 1 weights, got 0 x 4"):
        block(0, 4)


@named([block(2, 2), TWO_FOUR, FAN_IN, NEURONS])
def test_scores_that_are_no_numbers_are_refused(pattern: Pattern) -> None:
    score = torch.ones(4, 4)
    score[1, 2] = math.nan
    with pytest.raises(InputError, match="expected scores without NaN"):
        pattern.from_score(score, pattern.nearest(0.5))


def test_a_pattern_is_one_value() -> None:
    assert block(4, 8) is block(4, 8)
    assert n_of_m(2, 4) is TWO_FOUR
    assert len({pattern.name for pattern in PATTERNS}) == len(PATTERNS)
    assert dict.fromkeys(PATTERNS, 1)[block(2, 2)] == 1


@named([pattern for pattern in PATTERNS if pattern is not FULL])
@given(wide, sparsities, seeds)
def test_the_sparsity_of_a_mask_makes_one_of_as_many_units(
    pattern: Pattern, shape: tuple[int, int], sparsity: float, seed: int
) -> None:
    mask = made(pattern, shape, sparsity, seed)
    again = made(pattern, shape, pattern.sparsity_of(mask), seed + 1)
    if pattern is not NEURONS:  # both of whose sides are rounded
        assert int(units_of(again, pattern.unit).sum()) == int(units_of(mask, pattern.unit).sum())
