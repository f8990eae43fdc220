"""Rules with a schedule of sparsities, a first mask by a score, or growth that is shared out: at their ends and between."""

import itertools
import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from sparse_models.data import Split
from sparse_models.errors import InputError
from sparse_models.layers import LAYERS
from sparse_models.masks import FAN_IN, NEURONS, TWO_FOUR, UNSTRUCTURED, Pattern, block, count_kept
from sparse_models.masks.units import units_of
from sparse_models.models import draw, sparse_mlp
from sparse_models.mutation import updates_due
from sparse_models.training import Settings, train
from sparse_models.updates import UPDATES, cubic, in_rounds, resized, update_masks
from sparse_models.updates.snfs import apportioned
from tests.helpers.gpu.simulated_gpu import pretend_gpu
from tests.helpers.plain_training import shared_out
from tests.strategies import (
    FLOAT64_LAYERS,
    MOVING_LAYERS,
    coarse,
    fractions,
    generator,
    masks,
    normal,
    of_each_kind,
    seeds,
    shapes,
    sparsities,
)

RESIZING = sorted(name for name, rule in UPDATES.items() if rule.resizes)
FREE_LAYERS = [name for name in of_each_kind(MOVING_LAYERS) if LAYERS[name].pattern.is_free and name in FLOAT64_LAYERS]
SIZES = (20, 24, 20)


def steps(rule: str, count: int, interval: int) -> list[int]:
    return [step for step, progress in enumerate(updates_due(count, interval, UPDATES[rule]), 1) if progress is not None]


@given(st.floats(0, 1), st.floats(0.01, 1))
def test_sparsity_rises_from_dense_to_the_final_one(final: float, until: float) -> None:
    for schedule in (cubic(until), in_rounds(3, until)):
        rising = [schedule(final, until * part / 12) for part in range(13)] + [schedule(final, 1.0)]
        assert rising[0] == pytest.approx(0, abs=1e-12)
        assert rising[-1] == rising[-2] == final
        assert all(before <= after + 1e-12 for before, after in itertools.pairwise(rising))


def test_cubic_is_the_papers() -> None:
    assert [cubic(0.8)(0.9, at) for at in (0, 0.2, 0.4, 0.8)] == pytest.approx([0, 0.9 * (1 - 27 / 64), 0.9 * 7 / 8, 0.9])


def test_each_round_prunes_the_same_share_of_what_is_left() -> None:
    left = [1 - in_rounds(4, 0.8)(0.9, at) for at in (0.19, 0.2, 0.4, 0.6, 0.8)]
    assert left == pytest.approx([1, *(0.1 ** (number / 4) for number in (1, 2, 3, 4))])


def test_rules_are_due_while_something_changes_and_once_at_the_final_sparsity() -> None:
    assert steps("gmp", 40, 10) == [10, 20, 30]
    assert steps("gmp", 41, 10) == [10, 20, 30, 31]
    assert steps("gmp", 40, 100) == steps("prune", 60, 100) == [30]
    assert steps("prune", 40, 3) == [20]
    assert steps("lottery", 100, 1) == [20, 40, 60, 80]
    assert steps("lottery", 100, 7) == [21, 42, 63, 80]
    assert steps("mest", 40, 10) == [10, 20, 30]
    assert steps("snip", 40, 1) == steps("static", 40, 1) == []
    assert steps("snfs", 40, 10) == [10, 20, 30]


@pytest.mark.parametrize("interval", [4, 1000])
@pytest.mark.parametrize("rule", RESIZING)
@pytest.mark.parametrize("layer", FREE_LAYERS)
def test_a_training_starts_where_the_schedule_does_and_ends_at_the_final_sparsity(layer: str, rule: str, interval: int) -> None:
    pattern, final = LAYERS[layer].pattern, 0.7
    if not UPDATES[rule].fits(pattern):
        pytest.skip(f"{rule} moves no masks of {pattern.name}")
    sizes = [size * max(pattern.unit) // 2 for size in SIZES]
    model = sparse_mlp(draw(sizes, generator(0)), layer, final, generator(1), update=UPDATES[rule])
    for now in (UPDATES[rule].sparsity_at(final, 0.0), final):
        for part in model:
            scores = torch.rand(part.out_features, part.in_features)
            assert units_of(part.mask, pattern.unit).sum() == units_of(pattern.from_score(scores, now), pattern.unit).sum()
            assert pattern.accepts(part.mask)
        data = Split(normal(1, 30, sizes[0]), torch.randint(sizes[-1], (30,), generator=generator(1)))
        for _ in train(model, data, Settings(3, 8, 0.01, update_interval=interval), 0, UPDATES[rule]):
            pass


@pytest.mark.parametrize("pattern", [UNSTRUCTURED, block(2, 3), FAN_IN], ids=lambda pattern: pattern.name)
@given(shapes, sparsities, st.floats(0, 1), fractions, seeds, st.booleans())
def test_a_mask_is_resized_to_what_it_has_room_for(
    pattern: Pattern, shape: tuple[int, int], before: float, sparsity: float, fraction: float, seed: int, tied: bool
) -> None:
    mask = pattern.from_score(normal(seed, *shape), before)
    keep, grow = ((coarse if tied else normal)(seed + number, *shape).abs() for number in (1, 2))
    moved = resized(mask, keep, grow, fraction, sparsity, pattern=pattern)
    was, now = units_of(mask, pattern.unit), units_of(moved, pattern.unit)
    whole = now.shape[1] if pattern is FAN_IN else now.numel()
    rows = len(now) if pattern is FAN_IN else 1
    bound = count_kept(whole, sparsity) * rows
    assert pattern.accepts(moved)
    assert int(now.sum()) == (bound if fraction else min(bound, int(was.sum())))
    assert int((now & was).sum()) >= min(int(was.sum()), count_kept(whole, 1 - (1 - sparsity) * (1 - fraction)) * rows)
    if not fraction:
        assert not (now & ~was).any()


@given(masks(), seeds, st.floats(0, 1), fractions)
def test_resizing_keeps_and_grows_by_sorted_lists(mask: Tensor, seed: int, sparsity: float, fraction: float) -> None:
    keep, grow = normal(seed, *mask.shape), normal(seed + 1, *mask.shape)
    moved = resized(mask, keep, grow, fraction, sparsity)
    places = list(itertools.product(*map(range, mask.shape)))
    bound = count_kept(mask.numel(), 1 - (1 - sparsity) * (1 - fraction))
    held = sorted((at for at in places if mask[at]), key=lambda at: -float(keep[at]))[:bound]
    free = sorted(set(places) - set(held), key=lambda at: -float(grow[at]))
    grown = free[: count_kept(mask.numel(), sparsity) - len(held)] if fraction else []
    assert {at for at in places if moved[at]} == {*held, *grown}


@given(st.lists(st.tuples(st.floats(1e-3, 1e3) | st.just(0.0), st.integers(0, 30)), min_size=1, max_size=6), st.data())
def test_growth_is_shared_out_in_proportion_and_none_has_more_than_room(
    layers: list[tuple[float, int]], data: st.DataObject
) -> None:
    means, rooms = zip(*layers, strict=True)
    total = data.draw(st.integers(0, sum(rooms)))
    given_out = apportioned(total, means, rooms)
    assert sum(given_out) == total
    assert all(0 <= count <= room for count, room in zip(given_out, rooms, strict=True))
    defined = shared_out(total, means, rooms)
    assert all(abs(one - other) <= 1 for one, other in zip(given_out, defined, strict=True))  # ties are rounded either way


@given(seeds, st.floats(0, 1), st.sampled_from(["csr", "masked"]))
def test_snip_keeps_the_most_sensitive_weights_of_all_layers_by_sorted_lists(seed: int, sparsity: float, layer: str) -> None:
    drawn = draw((5, 6, 4), generator(seed))
    x, labels = normal(seed, 9, 5), torch.randint(4, (9,), generator=generator(seed))
    model = sparse_mlp(drawn, layer, sparsity, generator(0), update=UPDATES["snip"], samples=(x, labels))
    (first, a), (second, b) = drawn
    weights = [first.clone().requires_grad_(), second.clone().requires_grad_()]
    hidden = functional.linear(x, weights[0], a).relu()
    gradients = torch.autograd.grad(functional.cross_entropy(functional.linear(hidden, weights[1], b), labels), weights)
    ranked = sorted(
        (-abs(float(weight[at]) * float(gradient[at])), number, at)
        for number, (weight, gradient) in enumerate(zip([first, second], gradients, strict=True))
        for at in itertools.product(*map(range, weight.shape))
    )
    kept = sum(count_kept(weight.numel(), sparsity) for weight in weights)
    assume(kept in (0, len(ranked)) or ranked[kept - 1][0] < ranked[kept][0] - 1e-12)  # no tie, as of neurons that are off
    expected = {(number, at) for _, number, at in ranked[:kept]}
    found = {(number, (i, j)) for number, part in enumerate(model) for i, j in part.mask.nonzero().tolist()}
    assert found == expected


def test_snip_leaves_patterns_that_fix_numbers_to_themselves_and_asks_for_samples() -> None:
    samples = normal(0, 8, 8), torch.randint(4, (8,), generator=generator(0))
    model = sparse_mlp(draw((8, 8, 4), generator(0)), "compact", 0.5, generator(0), update=UPDATES["snip"], samples=samples)
    assert all(NEURONS.accepts(part.mask) for part in model)
    with pytest.raises(InputError, match="snip: expected samples by whose gradient the first weights are chosen, got none"):
        sparse_mlp(draw((8, 8, 4), generator(0)), "csr", 0.5, update=UPDATES["snip"])


def test_what_has_no_room_for_a_rule_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = torch.ones(4, 4, dtype=torch.bool)
    for pattern in (TWO_FOUR, NEURONS):
        assert not UPDATES["gmp"].fits(pattern)
        with pytest.raises(InputError, match=f"expected a pattern of any sparsity, got '{pattern.name}'; train it with a rule"):
            resized(mask, torch.ones(4, 4), torch.ones(4, 4), 0.0, 0.5, pattern=pattern)
    model = sparse_mlp(draw((4, 4), generator(0)), "csr", 0.5, generator(0))
    with pytest.raises(InputError, match="snfs: expected the gradient of every weight, got None"):
        update_masks(model, UPDATES["snfs"], 0.5)
    pretend_gpu(monkeypatch, captured=True)
    with pytest.raises(InputError, match="snfs: expected no CUDA graph to be captured"):
        update_masks(model, UPDATES["snfs"], 0.5, gradients={part: normal(0, 4, 4) for part in model})
    with pytest.raises(InputError, match="expected no CUDA graph to be captured, as the number of weights changes"):
        update_masks(model, UPDATES["gmp"], 0.0, sparsities=[0.7])


def test_weights_that_scale_with_density_start_as_dense_where_the_rule_does() -> None:
    drawn = draw((6, 5), generator(0))
    [dense] = sparse_mlp(drawn, "csr", 0.75, generator(1), scaled=True, update=UPDATES["gmp"])
    assert torch.equal(dense.to_dense(), drawn[0][0])
    [sparse] = sparse_mlp(drawn, "csr", 0.75, generator(1), scaled=True, update=UPDATES["set"])
    kept = count_kept(30, 0.75)
    torch.testing.assert_close(sparse.to_dense(), drawn[0][0] * sparse.mask / math.sqrt(kept / 30))
