"""What moves several layers moves all of them or none: after a refusal nothing has changed."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparse_models.data import Split
from sparse_models.errors import InputError
from sparse_models.models import draw, sparse_mlp
from sparse_models.sparsification import GradualPruner, sparse_layers, sparsify
from sparse_models.training import Settings, train
from sparse_models.updates import UPDATES, Move, move_masks, update_masks
from tests.strategies import generator, normal

TIED = "expected values that no other layer has, got a parameter of two"


def net_and_optimizer(sparsity: float = 0.0) -> tuple[nn.Sequential, torch.optim.Optimizer]:
    torch.manual_seed(0)
    net = sparsify(nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.Linear(6, 6)), sparsity=sparsity)
    optimizer = torch.optim.Adam(net.parameters())
    net(normal(0, 4, 6).float()).sum().backward()
    optimizer.step()
    return net, optimizer


def tie(net: nn.Module) -> None:
    """Let the last two layers share one parameter."""
    *_, layer, other = sparse_layers(net).values()
    other.values = layer.values


def state_of(net: nn.Module, optimizer: torch.optim.Optimizer) -> list[Any]:
    return copy.deepcopy([net.state_dict(), optimizer.state_dict()["state"], [net.get_parameter("0.values").grad]])


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one.nan_to_num(), other.nan_to_num()) if isinstance(one, Tensor) else bool(one == other)


def prune(net: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[], object]:
    return GradualPruner(net, optimizer, sparsity=0.5, end=1).step


def rewind(net: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[], object]:
    pruner = GradualPruner(net, optimizer, sparsity=0.5, end=1)
    pruner.early = {held: torch.zeros(6, 6) for held in sparse_layers(net).values()}
    return pruner.rewind


def update(net: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[], object]:
    layers = sparse_layers(net).values()
    return lambda: update_masks(layers, UPDATES["set"], 0.5, optimizer=optimizer, generator=generator(0))


def move(net: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[], object]:
    return lambda: move_masks([Move(layer, layer.mask) for layer in sparse_layers(net).values()], optimizer)


@pytest.mark.parametrize("prepare", [prune, rewind, update, move])
def test_where_two_layers_share_a_parameter_none_is_changed(
    prepare: Callable[[nn.Module, torch.optim.Optimizer], Callable[[], object]],
) -> None:
    net, optimizer = net_and_optimizer()
    change = prepare(net, optimizer)
    tie(net)
    before = state_of(net, optimizer)
    with pytest.raises(InputError, match=TIED):
        change()
    assert same(state_of(net, optimizer), before)


def nan_in_the_last(net: nn.Module) -> dict[str, Any]:
    *_, last = sparse_layers(net).values()
    with torch.no_grad():
        last.values[0] = torch.nan
    return {"update": UPDATES["set"]}


def no_gradient_of_the_last(net: nn.Module) -> dict[str, Any]:
    *others, _ = sparse_layers(net).values()
    return {"update": UPDATES["rigl"], "gradients": {layer: normal(0, 6, 6).float() for layer in others}}


def fewer_in_place(_: nn.Module) -> dict[str, Any]:
    return {"update": UPDATES["gmp"], "in_place": True, "sparsities": [0.5, 0.5, 0.75]}


@pytest.mark.parametrize("hinder", [nan_in_the_last, no_gradient_of_the_last, fewer_in_place])
def test_an_update_that_fails_at_the_last_layer_moves_none(hinder: Callable[[nn.Module], dict[str, Any]]) -> None:
    net, optimizer = net_and_optimizer(0.5)
    options = hinder(net)
    before = state_of(net, optimizer)
    with pytest.raises(InputError):
        update_masks(sparse_layers(net).values(), **options, drop_fraction=0.5, optimizer=optimizer, generator=generator(0))
    assert same(state_of(net, optimizer), before)


@pytest.mark.parametrize("tied", [True, False])
def test_a_checkpoint_that_the_last_layer_does_not_fit_changes_none(tmp_path: Path, *, tied: bool) -> None:
    data = Split(normal(1, 16, 5), torch.randint(4, (16,), generator=generator(1)))

    def training(hidden: int) -> tuple[Any, Any]:
        model = sparse_mlp(draw((5, 5, 5, hidden), generator(0)), "csr", 0.5, generator(0))
        return model, train(model, data, Settings(2, 8, 0.1), 0, UPDATES["set"], checkpoint=tmp_path / "training.pt")

    next(training(5)[1])
    model, other = training(5 if tied else 4)
    if tied:
        tie(model)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(InputError, match=TIED if tied else "expected a checkpoint of this model"):
        next(other)
    assert same(dict(model.state_dict()), dict(before))
