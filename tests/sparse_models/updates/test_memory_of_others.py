"""What is asked of memory before masks move: of all layers at once, before the first moves, and of all that is rewritten."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sparse_models.errors import InputError
from sparse_models.layers import SparseLinear, _checks
from sparse_models.models import MLP
from sparse_models.updates import UPDATES, Moves, update_masks
from tests.sparse_models.updates.test_in_place import IN_PLACE, Arm
from tests.sparse_models.updates.test_shared_memory import built, computes_what_it_stores, same, state_of, weights_of
from tests.strategies import generator


def as_it_is(model: MLP) -> nn.Module:
    return model


@pytest.mark.parametrize("convert", [as_it_is, MLP.float])
def test_what_other_processes_have_is_not_rewritten(convert: Callable[[MLP], nn.Module]) -> None:
    model = built("tiled", 0).share_memory()
    convert(model)  # the values alone: the index stays where others have it
    given = [*model.buffers()]
    before, index = state_of(model), [buffer.clone() for buffer in given]
    with pytest.raises(InputError, match="expected memory that no other layer or process has"):
        update_masks(model, UPDATES["set"], 0.5, generator=generator(0), in_place=True)
    assert same(state_of(model), before)
    update_masks(model, UPDATES["set"], 0.5, generator=generator(0), moves=Moves())
    assert same(given, index)
    assert not same(state_of(model), before)
    model.double()
    computes_what_it_stores(model)


@pytest.mark.parametrize("rule", IN_PLACE)
def test_an_optimizers_slot_that_a_layer_has_is_not_rewritten(rule: str) -> None:
    arm, other = Arm("tiled", "adam", 0, Moves()), built("tiled", 0)
    for layer, own in zip(other, arm.model, strict=True):
        layer.values.data = arm.optimizer.state[own.values]["exp_avg"]
    before, at = weights_of(other), [own.values.data_ptr() for own in arm.model]
    arm.update(rule, 0.5, 0)
    assert [own.values.data_ptr() for own in arm.model] != at
    assert same(weights_of(other)[::2], before[::2])
    moments = [arm.optimizer.state[own.values]["exp_avg"] for own in arm.model]
    assert not any(layer.values.data_ptr() == moment.data_ptr() for layer, moment in zip(other, moments, strict=True))


@pytest.mark.parametrize("moves", [Moves(), None])
def test_where_one_layer_is_tied_none_moves(moves: Moves | None) -> None:
    model, other = built("tiled", 0), built("tiled", 0)
    list(other)[-1].values = list(model)[-1].values
    before = state_of(model)
    with pytest.raises(InputError, match="got a parameter of two"):
        update_masks(model, UPDATES["set"], 0.5, generator=generator(0), moves=moves)
    assert same(state_of(model), before)


@pytest.mark.parametrize(("moves", "in_place"), [(True, False), (False, True), (False, False)])
def test_an_update_asks_as_often_for_many_layers_as_for_one(
    monkeypatch: pytest.MonkeyPatch, *, moves: bool, in_place: bool
) -> None:
    living, asked = _checks._living, list[int]()

    def counted() -> list[SparseLinear]:
        asked.append(1)
        return living()

    monkeypatch.setattr(_checks, "_living", counted)
    found = list[int]()
    for layers in (list(built("tiled", 0))[:1], list(built("tiled", 1))):
        asked.clear()
        update_masks(
            layers, UPDATES["set"], 0.5, generator=generator(0), in_place=in_place, moves=Moves() if moves else None
        )  # fmt: skip
        found.append(len(asked))
    assert found[0] == found[1] > 0


def test_values_that_begin_apart_in_one_memory_are_shared() -> None:
    one, other = (next(iter(built("tiled", seed))) for seed in (0, 0))
    assert not _checks.share_memory({one: []})
    both: Tensor = torch.cat([one.values.detach(), other.values.detach()[:1]])
    one.values.data, other.values.data = both[:-1], both[1:]
    assert _checks.share_memory({one: []})
    assert _checks.share_memory({one: [], other: []})
