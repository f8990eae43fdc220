"""Layers that share tensors while masks move: each computes by its own index, or a sentence says what is in the way."""

import copy
import io
import pickle
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sparse_models.errors import InputError
from sparse_models.layers import LAYERS, SparseLinear
from sparse_models.models import MLP
from sparse_models.updates import UPDATES, Moves, update_masks
from tests.sparse_models.updates.test_in_place import IN_PLACE, SIZES, Arm, samples
from tests.strategies import MOVING_LAYERS, drawn, generator, mask_for, mlp_of, normal, seeds, widest

MOVED = ["tiled", "csr"]


def built(name: str, seed: int) -> MLP:
    return mlp_of(name, drawn(name, SIZES, seed), 0.6, seed)


def moved(model: MLP, rule: str, seed: int, moves: Moves | None = None) -> None:
    gradients: dict[SparseLinear, Tensor] = {layer: normal(seed, *layer.mask.shape) for layer in model}
    update_masks(model, UPDATES[rule], 0.5, gradients=gradients, generator=generator(seed), moves=moves or Moves())


def one_assigns(model: MLP, other: MLP) -> None:
    other.load_state_dict(model.state_dict(), assign=True)


def both_assign(model: MLP, other: MLP) -> None:
    state = copy.deepcopy(model.state_dict())
    for one in (model, other):
        one.load_state_dict(state, assign=True)


def data_is_given(model: MLP, other: MLP) -> None:
    other.load_state_dict(model.state_dict())
    for layer, own in zip(other, model, strict=True):
        layer.values.data = own.values.data


def data_overlaps(model: MLP, other: MLP) -> None:
    for layer, own in zip(other, model, strict=True):
        layer.set_mask(own.mask)
        both = torch.cat([own.values.detach(), own.values.detach()[-1:]])
        own.values.data, layer.values.data = both[:-1], both[1:]  # one apart


def index_is_given(model: MLP, other: MLP) -> None:
    other.load_state_dict(model.state_dict())
    for layer, own in zip(other, model, strict=True):
        layer._buffers.update(own._buffers)


def replicas_are_made(model: MLP, other: MLP) -> None:
    """Have layers as `nn.DataParallel` makes them, which lack what it then gives them."""
    for place, layer in enumerate(model):
        replica = layer._replicate_for_data_parallel()  # type: ignore[no-untyped-call]
        replica.__dict__.update(values=layer.values.detach(), bias=layer.values.detach())
        other.layers[place] = replica


def parameter_is_given(layer: SparseLinear, other: SparseLinear) -> SparseLinear:
    other.values = layer.values
    return other


def parameter_is_assigned(layer: SparseLinear, other: SparseLinear) -> SparseLinear:
    other.load_state_dict(layer.state_dict(keep_vars=True), assign=True)
    return other


def layer_is_copied_alone(layer: SparseLinear, other: SparseLinear) -> SparseLinear:
    return copy.copy(layer)


def saved_and_loaded(model: MLP) -> MLP:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded: MLP = torch.load(file, weights_only=False)
    return loaded


def pickled(model: MLP) -> MLP:
    loaded: MLP = pickle.loads(pickle.dumps(model))  # noqa: S301  # our own
    return loaded


def weights_of(model: MLP) -> list[Tensor]:
    """What each layer stores that follows its mask, as copies."""
    return [tensor.clone() for layer in model for tensor in (layer.mask, layer.to_dense())]


def biases_of(model: MLP) -> list[Tensor]:
    return [layer.bias.detach().clone() for layer in model if layer.bias is not None]


def state_of(model: MLP) -> list[Tensor]:
    """What each layer stores, as copies."""
    return [*weights_of(model), *biases_of(model)]


def places(model: MLP) -> list[int]:
    return [tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())]


def same(found: list[Tensor], expected: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def computes_what_it_stores(model: MLP) -> None:
    for layer in model:
        x = normal(3, 40, layer.in_features).requires_grad_()
        found, expected = layer(x), nn.functional.linear(x, layer.to_dense(), layer.bias)
        torch.testing.assert_close(found, expected)
        grads = (torch.autograd.grad(output, x, normal(4, *found.shape))[0] for output in (found, expected))
        torch.testing.assert_close(*grads)


SHARING = [one_assigns, both_assign, data_is_given, data_overlaps, index_is_given, replicas_are_made]


@pytest.mark.parametrize("share", SHARING)
@pytest.mark.parametrize("layer", MOVED)
@settings(max_examples=5)
@given(st.sampled_from(IN_PLACE), seeds)
def test_who_shares_memory_keeps_weights_and_index(share: Callable[[MLP, MLP], None], layer: str, rule: str, seed: int) -> None:
    model, alone, other = built(layer, seed), built(layer, seed), built(layer, seed + 1)
    share(model, other)
    before = state_of(other)
    for one in (model, alone):
        moved(one, rule, seed)
    assert same(state_of(other), before)
    assert same(state_of(model), state_of(alone))
    computes_what_it_stores(model)
    if share is not replicas_are_made:  # which are called while a forward pass lasts
        computes_what_it_stores(other)
        moved(other, rule, seed + 2)
        assert same(state_of(model), state_of(alone))
    assert not same(state_of(model), before)


@pytest.mark.parametrize("rule", IN_PLACE)
def test_a_training_goes_on_beside_one_that_took_its_memory(rule: str) -> None:
    arm, alone = (Arm("tiled", "adam", 0, Moves()) for _ in range(2))
    other = built("tiled", 1)
    one_assigns(arm.model, other)
    for one in (arm, alone):
        one.update(rule, 0.5, 0)
    before, biases, at = weights_of(other), biases_of(other), places(arm.model)
    for number in range(3):
        for one in (arm, alone):
            one.losses.append(float(one.step(*samples(number))))
            one.update(rule, 0.3, number)
    assert arm.losses == alone.losses
    assert same(state_of(arm.model), state_of(alone.model))
    assert same(weights_of(other), before)
    assert same(biases_of(other), biases_of(arm.model))  # no mask moves them: they stay shared, as `assign` means it
    assert not same(biases_of(other), biases)
    assert places(arm.model) == at  # the first move was out of the memory that was shared, the others are in place


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled, saved_and_loaded])
@pytest.mark.parametrize("layer", MOVED)
def test_copies_share_nothing(copied: Callable[[MLP], MLP], layer: str) -> None:
    model = built(layer, 0)
    other, at = copied(model), places(model)
    before = state_of(other)
    moved(model, "rigl", 0)
    assert places(model) == at
    assert same(state_of(other), before)
    computes_what_it_stores(other)


def test_other_processes_keep_what_they_were_given() -> None:
    model = built("tiled", 0).share_memory()
    given_away, before = model.state_dict(), state_of(model)
    moved(model, "set", 0)
    computes_what_it_stores(model)
    assert not same(state_of(model), before)
    model.load_state_dict(given_away)
    assert same(state_of(model), before)


@pytest.mark.parametrize("in_place", [True, False])
@settings(max_examples=5)
@given(seed=seeds, updates=st.integers(1, 3))
def test_a_copy_of_a_state_brings_back_weights_and_index(*, in_place: bool, seed: int, updates: int) -> None:
    model = built("tiled", seed)
    seen, best, before = model.state_dict(), copy.deepcopy(model.state_dict()), state_of(model)
    for number in range(updates):
        moved(model, "rigl" if in_place else "mest", seed + number)
    now = state_of(model)
    model.load_state_dict(seen)  # the same memory, or what was there before: never some of both
    assert same(state_of(model), now if in_place else before)
    computes_what_it_stores(model)
    model.load_state_dict(best)
    assert same(state_of(model), before)
    computes_what_it_stores(model)


TIES = [(name, parameter_is_given) for name in MOVING_LAYERS]
TIES += [("tiled", parameter_is_assigned), ("tiled", layer_is_copied_alone)]


@pytest.mark.parametrize(("name", "tie"), TIES)
def test_a_parameter_of_two_layers_is_not_moved(name: str, tie: Callable[[SparseLinear, SparseLinear], SparseLinear]) -> None:
    masks = [mask_for(name, (8, 12), 0.5, seed) for seed in (0, 1)]
    layer, other = (LAYERS[name](normal(0, 8, 12, dtype=widest(name)), masks[0]) for _ in range(2))
    other = tie(layer, other)
    before = layer.to_dense()
    with pytest.raises(InputError, match="expected values that no other layer has, got a parameter of two"):
        layer.set_mask(masks[1])
    assert torch.equal(layer.to_dense(), before)
    assert torch.equal(layer.mask, masks[0])


def test_a_layer_that_was_let_go_of_ties_nothing_though_it_holds_itself() -> None:
    masks = [mask_for("tiled", (8, 12), 0.5, seed) for seed in (0, 1)]
    layer, other = (LAYERS["tiled"](normal(0, 8, 12), masks[0]) for _ in range(2))
    other.values, other.itself = layer.values, [other]  # type: ignore[assignment]  # there until it is collected
    del other
    layer.set_mask(masks[1])
    assert torch.equal(layer.mask, masks[1])


def test_memory_of_two_layers_is_not_moved_in_place_where_that_is_asked_for() -> None:
    model, other = built("tiled", 0), built("tiled", 0)
    one_assigns(model, other)
    layer, before = next(iter(model)), state_of(model)
    with pytest.raises(InputError, match="expected memory that no other layer or process has, got some that another has too"):
        layer.move(mask_for("tiled", layer.mask.shape, 0.6, 7), in_place=True)
    assert same(state_of(model), before)
