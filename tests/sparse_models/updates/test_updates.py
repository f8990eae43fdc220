import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from sparse_models.errors import InputError
from sparse_models.layers import LAYERS
from sparse_models.masks import UNSTRUCTURED, count_kept
from sparse_models.models import MLP, dense_mlp, draw, sparse_mlp
from sparse_models.training import OPTIMIZERS, training_step
from sparse_models.updates import UPDATES, constant, cosine, dense_gradients, move_mask, prune_and_regrow, update_masks
from tests.strategies import (
    MOVING_LAYERS,
    MOVING_RULES,
    RULES_OF,
    SPARSE_LAYERS,
    coarse,
    drawn,
    fractions,
    generator,
    masks,
    masks_of,
    mlp_of,
    normal,
    of_each_kind,
    places,
    seeds,
    widest,
)

optimizers = st.sampled_from(sorted(OPTIMIZERS))
ANYWHERE = sorted(name for name, update in UPDATES.items() if update.fits(UNSTRUCTURED))


@pytest.mark.parametrize("name", ANYWHERE)
@given(masks(), seeds, fractions, st.booleans())
def test_update_conserves_the_non_zeros_exactly(name: str, mask: Tensor, seed: int, fraction: float, tied: bool) -> None:
    numbers = coarse if tied else normal
    weight, grad = numbers(seed, *mask.shape) * mask, numbers(seed + 1, *mask.shape)
    updated = UPDATES[name](mask, weight, grad, fraction, generator(seed))
    assert (updated.dtype, updated.shape) == (torch.bool, mask.shape)
    assert int(updated.sum()) == int(mask.sum())


@pytest.mark.parametrize("name", MOVING_RULES)
@given(masks(), seeds, fractions)
def test_the_survivors_are_the_largest_by_sorted_lists(name: str, mask: Tensor, seed: int, fraction: float) -> None:
    weight, grad = normal(seed, *mask.shape) * mask, normal(seed + 1, *mask.shape)
    updated = UPDATES[name](mask, weight, grad, fraction, generator(seed))
    importance = weight.abs() + 0.01 * grad.abs() if name == "mest" else weight.abs()
    held = sorted(importance[mask].tolist())
    surviving = held[len(held) - count_kept(len(held), fraction) :]
    assert set(surviving) <= set(importance[updated & mask].tolist())


@given(masks(), seeds, fractions)
def test_set_moves_exactly_the_smallest_when_none_may_return(mask: Tensor, seed: int, fraction: float) -> None:
    weight = normal(seed, *mask.shape) * mask
    kept, free = int(mask.sum()), int((~mask).sum())
    updated = prune_and_regrow(mask, weight.abs(), normal(seed + 1, *mask.shape), fraction, regrow_dropped=False)
    moved = min(kept - count_kept(kept, fraction), free)
    assert sorted(weight[mask & ~updated].abs().tolist()) == sorted(weight[mask].abs().tolist())[:moved]
    assert int((updated & ~mask).sum()) == moved


@given(masks(), seeds, fractions)
def test_rigl_grows_by_largest_gradient_by_sorted_lists(mask: Tensor, seed: int, fraction: float) -> None:
    weight, grad = normal(seed, *mask.shape) * mask, normal(seed + 1, *mask.shape)
    updated = UPDATES["rigl"](mask, weight, grad, fraction, None)
    entries = [
        (float(w), abs(float(g)), bool(m)) for w, g, m in zip(weight.flatten(), grad.flatten(), mask.flatten(), strict=True)
    ]
    by_weight = sorted((i for i, entry in enumerate(entries) if entry[2]), key=lambda i: abs(entries[i][0]))
    dropped = len(by_weight) - count_kept(len(by_weight), fraction)
    survivors = set(by_weight[dropped:])
    candidates = sorted((i for i in range(len(entries)) if i not in survivors), key=lambda i: -entries[i][1])
    assert set(updated.flatten().nonzero().squeeze(1).tolist()) == survivors | set(candidates[:dropped])


def test_set_grows_uniformly_at_random_whatever_the_gradient() -> None:
    mask = torch.zeros(4, 5, dtype=torch.bool)
    mask[0] = True
    weight, grad = torch.arange(20.0).reshape(4, 5), torch.arange(20.0).reshape(4, 5)
    counts = torch.zeros(4, 5)
    for seed in range(4000):
        counts += UPDATES["set"](mask, weight * mask, grad, 0.4, generator(seed)) & ~mask
    # Two of five are dropped, and two grown among the 17 places then free: 2/17 each, five standard deviations allowed.
    p = 2 / 17
    assert float((counts[1:] - 4000 * p).abs().max()) < 5 * math.sqrt(4000 * p * (1 - p))


@pytest.mark.parametrize("name", ANYWHERE)
@given(masks(), seeds)
def test_a_drop_fraction_of_0_moves_nothing(name: str, mask: Tensor, seed: int) -> None:
    weight = normal(seed, *mask.shape)
    assert torch.equal(UPDATES[name](mask, weight, weight, 0.0, generator(seed)), mask)


@given(masks(), seeds, fractions)
def test_the_same_generator_gives_the_same_mask(mask: Tensor, seed: int, fraction: float) -> None:
    weight = normal(seed, *mask.shape)
    first, second = (UPDATES["set"](mask, weight, None, fraction, generator(seed)) for _ in range(2))
    assert torch.equal(first, second)


def test_rigl_without_a_gradient_is_refused() -> None:
    mask = torch.ones(2, 2, dtype=torch.bool)
    with pytest.raises(InputError, match="rigl: expected the gradient of every weight, got None"):
        UPDATES["rigl"](mask, torch.ones(2, 2), None, 0.3)


@pytest.mark.parametrize("fraction", [-0.1, 1.1, math.nan])
def test_a_bad_drop_fraction_is_refused(fraction: float) -> None:
    with pytest.raises(InputError, match="expected a drop fraction between 0 and 1"):
        prune_and_regrow(torch.ones(2, dtype=torch.bool), torch.ones(2), torch.ones(2), fraction)


def test_scores_of_another_shape_are_refused() -> None:
    with pytest.raises(InputError, match="of one shape"):
        prune_and_regrow(torch.ones(2, dtype=torch.bool), torch.ones(2), torch.ones(3), 0.5)


def test_cosine_starts_at_its_fraction_halves_midway_and_ends_at_0() -> None:
    schedule = cosine(0.3, until=0.75)
    assert [schedule(at) for at in (0, 0.375, 0.75, 0.9)] == pytest.approx([0.3, 0.15, 0, 0])


def test_constant_stops_at_its_end() -> None:
    assert [constant(0.3, until=0.5)(at) for at in (0, 0.49, 0.5)] == [0.3, 0.3, 0]


def trained(
    layer: str, optimizer: str, seed: int, device: str, times: int = 1, **options: float
) -> tuple[MLP, torch.optim.Optimizer]:
    """A small sparse model, or one so many times as wide, two steps into training: every optimizer has state then."""
    model = mlp_of(layer, drawn(layer, (6 * times, 5 * times, 4), seed, device), 0.6, seed)
    chosen = OPTIMIZERS[optimizer](model.parameters(), lr=0.1, **options)
    steps(model, chosen, seed, device)
    return model, chosen


def steps(model: MLP, optimizer: torch.optim.Optimizer, seed: int, device: str) -> None:
    for step in range(2):
        labels = torch.randint(4, (8,), generator=generator(seed + step)).to(device)
        x = normal(seed + step, 8, next(iter(model)).in_features, dtype=next(model.parameters()).dtype).to(device)
        training_step(model, x, labels, optimizer)


@pytest.mark.parametrize(("layer", "device"), places(of_each_kind(SPARSE_LAYERS)))
@given(optimizers, seeds, st.data())
def test_weights_and_optimizer_state_follow_their_mask(
    layer: str, device: str, optimizer: str, seed: int, data: st.DataObject
) -> None:
    model, chosen = trained(layer, optimizer, seed, device)
    for part in model:
        mask = part.mask
        moved = data.draw(masks_of(layer, mask.shape)).to(device)
        state = {name: value for name, value in chosen.state[part.values].items() if value.shape == part.values.shape}
        assert state, "an optimizer without state would test nothing"
        before = {name: part.unpack(value) for name, value in state.items()} | {"weight": part.to_dense()}
        move_mask(part, moved, chosen)
        after = {name: part.unpack(chosen.state[part.values][name]) for name in state} | {"weight": part.to_dense()}
        # Under both masks: the same numbers as before. Grown, dropped or never kept: exactly 0.
        for name, dense in before.items():
            assert torch.equal(after[name], torch.where(mask & moved, dense, 0.0)), name
        assert torch.equal(part.mask, moved)
        assert part.values.grad is None


@pytest.mark.parametrize("layer", of_each_kind(MOVING_LAYERS))
@given(optimizers, seeds, st.data())
def test_weights_outside_the_mask_stay_exactly_0_under_weight_decay_and_momentum(
    layer: str, optimizer: str, seed: int, data: st.DataObject
) -> None:
    rule = data.draw(st.sampled_from(RULES_OF[layer]))
    model, chosen = trained(layer, optimizer, seed, "cpu", weight_decay=0.1)
    grads = {part: normal(seed, part.out_features, part.in_features, dtype=part.values.dtype) for part in model}
    update_masks(model, UPDATES[rule], 0.5, optimizer=chosen, gradients=grads, generator=generator(seed))
    steps(model, chosen, seed + 9, "cpu")
    for part in model:
        assert torch.equal(part.pack(part.to_dense()), part.values)
        assert not part.to_dense()[~part.mask].any()
        if part.values.shape == part.mask.shape:
            assert not part.values[~part.mask].any()


@pytest.mark.parametrize("layer", of_each_kind(MOVING_LAYERS))
@given(seeds)
def test_grown_weights_are_trained_after_an_update(layer: str, seed: int) -> None:
    model, chosen = trained(layer, "sgd", seed, "cpu", times=max(LAYERS[layer].pattern.unit))
    first = next(iter(model))
    before = first.mask
    update_masks([first], UPDATES["set"], 1.0, optimizer=chosen, generator=generator(seed + 1))
    grown = first.mask & ~before
    assume(bool(grown.any()))
    assert not first.to_dense()[grown].any()
    with dense_gradients([first]) as gradients:
        steps(model, chosen, seed + 9, "cpu")
    reached = grown & (gradients[first] != 0)
    assert bool((first.to_dense()[reached] != 0).all())


@pytest.mark.parametrize("layer", of_each_kind(LAYERS))
@given(seeds)
def test_dense_gradients_are_the_gradient_of_every_weight(layer: str, seed: int) -> None:
    weights = drawn(layer, (6, 5, 4), seed)
    sparse = mlp_of(layer, weights, 0.6, seed)
    full = dense_mlp([(part.to_dense(), bias) for part, (_, bias) in zip(sparse, weights, strict=True)])
    x, grad = (normal(seed + number, 8, size, dtype=widest(layer)) for number, size in enumerate([6, 4]))
    with dense_gradients(sparse) as gradients:
        sparse(x).backward(grad)
    full(x).backward(grad)
    for part, whole in zip(sparse, full, strict=True):
        assert whole.values.grad is not None
        torch.testing.assert_close(gradients[part], whole.values.grad)


def test_dense_gradients_leaves_no_hook_behind() -> None:
    model = sparse_mlp(draw((3, 2), generator(0)), "csr", 0.5, generator(0))
    with dense_gradients(model) as gradients:
        pass
    model(normal(0, 4, 3)).sum().backward()
    assert not gradients


def test_dense_gradients_add_up_over_passes_and_ignore_inference() -> None:
    model = sparse_mlp(draw((3, 2), generator(0)), "csr", 0.5, generator(0))
    x, grad = normal(0, 4, 3), normal(1, 4, 2)
    with dense_gradients(model) as gradients:
        for _ in range(2):
            model(x).backward(grad)
        with torch.no_grad():
            model(x)
    torch.testing.assert_close(gradients[next(iter(model))], 2 * grad.t() @ x)
