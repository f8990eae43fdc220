"""Fairness: the arms of a comparison differ in nothing but what is compared."""

from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_models.data import Split
from sparse_models.errors import InputError
from sparse_models.layers import LAYERS
from sparse_models.masks.units import units_of
from sparse_models.models import MLP, convert, dense_mlp, draw, sparse_mlp
from sparse_models.mutation import updates_due
from sparse_models.training import (
    OPTIMIZERS,
    FusedStep,
    Settings,
    evaluate,
    optimizer_for,
    train,
)
from sparse_models.updates import UPDATES
from tests.strategies import (
    FLOAT64_LAYERS,
    MOVING_LAYERS,
    RULES_OF,
    SPARSE_LAYERS,
    drawn,
    generator,
    mlp_of,
    normal,
    of_each_kind,
    places,
    rules_and_optimizers,
    seeds,
    widest,
)

SIZES = (6, 8, 7, 4)
SETTINGS = Settings(epochs=3, batch=8, learning_rate=0.01, update_interval=2)
# In float32, rounding may decide which weight a mask update moves, and trainings part from there.
TRAJECTORIES = [layer for layer in of_each_kind(SPARSE_LAYERS) if layer in FLOAT64_LAYERS]
FULL_TRAJECTORIES = [layer for layer in TRAJECTORIES if LAYERS[layer].pattern.nearest(0.0) == 0]


def samples(
    seed: int, count: int = 30, device: str = "cpu", dtype: torch.dtype = torch.float64, inputs: int = SIZES[0]
) -> Split:
    labels = torch.randint(SIZES[-1], (count,), generator=generator(seed))
    return Split(normal(seed, count, inputs, dtype=dtype).to(device), labels.to(device))


def losses(model: MLP, data: Split, settings: Settings = SETTINGS, seed: int = 0, update: str = "static") -> torch.Tensor:
    return torch.cat(list(train(model, data, settings, seed, UPDATES[update])))


@cache
def dense_losses(optimizer: str, device: str, dtype: torch.dtype) -> torch.Tensor:
    """Return what dense comes to, once for all arms that it is held against."""
    model = dense_mlp(convert(draw(SIZES, generator(0)), device, dtype))
    return losses(model, samples(1, device=device, dtype=dtype), SETTINGS._replace(optimizer=optimizer))


@pytest.mark.parametrize(("update", "optimizer"), rules_and_optimizers(UPDATES))
@pytest.mark.parametrize(("layer", "device"), places(FULL_TRAJECTORIES))
def test_at_sparsity_0_every_arm_follows_dense_step_by_step(layer: str, update: str, optimizer: str, device: str) -> None:
    if not UPDATES[update].fits(LAYERS[layer].pattern):
        pytest.skip(f"{update} moves no masks of {LAYERS[layer].pattern.name}")
    weights, dtype = drawn(layer, SIZES, 0, device), widest(layer, device)
    # Every layer that has several rules, and every rule, is trained scaled and not.
    is_scaled = (FULL_TRAJECTORIES.index(layer) + list(UPDATES).index(update)) % 2 == 0
    sparse = sparse_mlp(weights, layer, 0.0, generator(2), scaled=is_scaled)
    data = samples(1, device=device, dtype=dtype)
    found = losses(sparse, data, SETTINGS._replace(optimizer=optimizer), 0, update)
    # Steps of Adam enlarge what rounding did.
    rtol, atol = (None, None) if dtype == torch.float64 else (1e-3, 1e-3)
    torch.testing.assert_close(found, dense_losses(optimizer, device, dtype), rtol=rtol, atol=atol)


@pytest.mark.parametrize(("update", "optimizer"), rules_and_optimizers(UPDATES))
@pytest.mark.parametrize("layer", TRAJECTORIES)
def test_at_equal_mask_sparse_layers_follow_one_another(layer: str, update: str, optimizer: str) -> None:
    pattern = LAYERS[layer].pattern
    if not UPDATES[update].fits(pattern):
        pytest.skip(f"{update} moves no masks of {pattern.name}")
    settings = SETTINGS._replace(optimizer=optimizer)
    drawn_weights = draw([size * max(pattern.unit) for size in SIZES], generator(0))
    own = mlp_of(layer, drawn_weights, 0.6, 2)
    masked = type("MaskedInThePattern", (LAYERS["masked"],), {"pattern": pattern})
    models = [MLP(masked(part.to_dense(), part.mask, part.bias) for part in own), own]
    data = samples(1, inputs=SIZES[0] * max(pattern.unit))
    first, second = (losses(model, data, settings, update=update) for model in models)
    torch.testing.assert_close(first, second)
    for one, other in zip(*models, strict=True):
        assert torch.equal(one.mask, other.mask)
        torch.testing.assert_close(one.to_dense(), other.to_dense())


# Each layer, and each rule with a layer that it is for.
RULES_WITH_A_LAYER = [
    (next(one for one in ("tiled", "fan_in") if UPDATES[rule].fits(LAYERS[one].pattern)), rule) for rule in UPDATES
]


@pytest.mark.parametrize(("layer", "update"), sorted({*RULES_WITH_A_LAYER, *((layer, "static") for layer in FLOAT64_LAYERS)}))
def test_every_arm_sees_the_same_batches_in_the_same_order(layer: str, update: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data, seen = samples(1), []
    step = FusedStep.watching

    def spy(self: FusedStep, layers: Any, inputs: torch.Tensor, labels: torch.Tensor, **how: bool) -> Any:
        seen.append((inputs, labels))
        return step(self, layers, inputs, labels, **how)

    monkeypatch.setattr(FusedStep, "watching", spy)
    losses(dense_mlp(draw(SIZES, generator(0))), data)
    reference, seen = seen, []
    losses(mlp_of(layer, draw(SIZES, generator(0)), 0.6, 2), data, update=update)
    assert len(seen) == len(reference) == 12
    assert all(torch.equal(a, b) for pair in zip(seen, reference, strict=True) for a, b in zip(*pair, strict=True))


@given(seeds, st.integers(1, 40), st.integers(1, 12))
def test_every_epoch_sees_every_sample_once(seed: int, count: int, batch: int) -> None:
    data = Split(torch.arange(count).double()[:, None], torch.zeros(count, dtype=torch.int64))
    seen: list[float] = []
    model = dense_mlp(draw((1, 1), generator(0)))
    model.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs[0].flatten().tolist()))
    for _ in train(model, data, SETTINGS._replace(epochs=2, batch=batch), seed):
        pass
    assert sorted(seen[:count]) == sorted(seen[count:]) == list(range(count))


def test_another_seed_gives_another_order() -> None:
    drawn = draw(SIZES, generator(0))
    first, second = (losses(dense_mlp(drawn), samples(1), seed=seed) for seed in (0, 1))
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("layer", "update"), [(layer, rule) for layer in MOVING_LAYERS for rule in RULES_OF[layer] if UPDATES[rule].conserves]
)
def test_training_moves_the_mask_and_keeps_its_units(layer: str, update: str) -> None:
    unit = LAYERS[layer].pattern.unit
    wide = [size * max(unit) - (unit != (1, 1)) for size in SIZES[:-1]]  # edges of blocks are cut
    model = mlp_of(layer, drawn(layer, [*wide, SIZES[-1]], 0), 0.6, 2)
    before = [part.mask for part in model]
    losses(model, samples(1, dtype=widest(layer), inputs=wide[0]), update=update)
    assert [int(units_of(part.mask, unit).sum()) for part in model] == [int(units_of(mask, unit).sum()) for mask in before]
    assert any(not torch.equal(part.mask, mask) for part, mask in zip(model, before, strict=True))


def test_masks_move_every_interval_but_not_after_the_last_step() -> None:
    due = updates_due(12, 3, UPDATES["set"])
    assert [step for step, progress in enumerate(due, 1) if progress is not None] == [3, 6, 9]


def test_rigl_stops_at_three_quarters_of_the_training() -> None:
    due = updates_due(40, 10, UPDATES["rigl"])
    assert [step for step, progress in enumerate(due, 1) if progress is not None] == [10, 20]
    assert due[9] == 0.25
    assert UPDATES["rigl"].drop_fraction(0.25) == pytest.approx(0.3 / 2 * (1 + 0.5))


def test_training_learns() -> None:
    inputs = normal(0, 200, SIZES[0])
    data = Split(inputs, inputs[:, : SIZES[-1]].argmax(1))
    model = sparse_mlp(draw(SIZES, generator(0)), "csr", 0.3, generator(2), scaled=True)
    before = evaluate(model, data)
    losses(model, data, SETTINGS._replace(epochs=20))
    assert evaluate(model, data).accuracy > 0.8 > before.accuracy


def test_evaluate_is_cross_entropy_and_the_fraction_right() -> None:
    model = dense_mlp([(torch.eye(2), torch.zeros(2))])
    data = Split(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 1, 1, 1]))
    right, wrong = (float(torch.log1p(torch.tensor(1.0).mul(sign).exp())) for sign in (-1, 1))
    quality = evaluate(model, data)
    assert quality.accuracy == 0.75
    assert quality.loss == pytest.approx((3 * right + wrong) / 4)


@pytest.mark.parametrize(
    "bad", [{"optimizer": "adagrad"}, {"epochs": 0}, {"batch": 0}, {"learning_rate": 0.0}, {"update_interval": 0}], ids=str
)
def test_settings_that_no_training_can_use_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected "):
        losses(dense_mlp(draw(SIZES, generator(0))), samples(1), SETTINGS._replace(**bad))  # type: ignore[arg-type]


@settings(max_examples=10)
@given(seeds)
def test_the_learning_rate_is_used(seed: int) -> None:
    drawn = draw(SIZES, generator(seed))
    slow, fast = (losses(dense_mlp(drawn), samples(seed), SETTINGS._replace(learning_rate=rate)) for rate in (1e-4, 1e-2))
    assert float(slow[0]) == float(fast[0])
    assert not torch.equal(slow, fast)


class OnCard(torch.nn.Parameter):
    """A parameter that says that it is on a GPU."""

    is_cuda = True


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_on_a_gpu_can_be_captured_and_one_on_a_cpu_is_as_before(name: str) -> None:
    host, card = (optimizer_for(name, iter([kind(torch.ones(2))]), 0.5) for kind in (torch.nn.Parameter, OnCard))
    assert host.defaults == OPTIMIZERS[name]([torch.nn.Parameter(torch.ones(2))], lr=0.5).defaults
    assert card.defaults == host.defaults | ({"capturable": True} if "capturable" in host.defaults else {})
    assert "capturable" in host.defaults or name == "sgd"
