import copy
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sparse_models.errors import InputError
from sparse_models.masks import count_kept
from sparse_models.sparsification import GradualPruner, densify, sparse_layers, sparsify
from sparse_models.updates import UPDATES, dense_gradients, kept_gradients, update_masks
from tests.strategies import MOVING_RULES, generator, normal, sparsities


def net_of(layer: str = "tiled", sparsity: float = 0.0) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 16, 12), nn.ReLU(), nn.Linear(12, 3)
    )
    return sparsify(net.double(), layer, sparsity=sparsity, types=(nn.Linear, nn.Conv2d))


def step(net: nn.Module, optimizer: torch.optim.Optimizer, seed: int = 0) -> Tensor:
    optimizer.zero_grad()
    loss: Tensor = net(normal(seed, 8, 2, 4, 4)).square().mean()
    loss.backward()
    optimizer.step()
    return loss.detach()


def masks_of(net: nn.Module) -> list[Tensor]:
    return [layer.mask for layer in sparse_layers(net).values()]


@pytest.mark.parametrize("layer", ["tiled", "block4", "fan_in"])
@settings(max_examples=10)
@given(sparsities, st.integers(0, 4), st.integers(0, 6), st.integers(1, 4), st.sampled_from(["magnitude", "global", "random"]))
def test_fewer_weights_each_time_and_as_many_as_asked_in_the_end(
    layer: str, sparsity: float, begin: int, length: int, every: int, by: str
) -> None:
    assume(begin + length)
    net = net_of(layer)
    optimizer = torch.optim.Adam(net.parameters())
    pruner = GradualPruner(net, optimizer, sparsity=sparsity, begin=begin, end=begin + length, every=every, by=by)
    for number in range(1, begin + length + 3):
        step(net, optimizer)
        before, weights = masks_of(net), [one.to_dense() for one in pruner.layers]
        went = pruner.step()
        after = masks_of(net)
        assert all(bool((~new | old).all()) for old, new in zip(before, after, strict=True))
        assert went == any(int(old.sum()) > int(new.sum()) for old, new in zip(before, after, strict=True))
        assert not (went and (number < begin or number > begin + length))
        for one, weight, mask in zip(pruner.layers, weights, after, strict=True):
            assert torch.equal(one.to_dense(), weight * mask)
            assert all(held.shape == one.values.shape for held in optimizer.state[one.values].values() if held.dim())
    if layer == "tiled":
        sizes = [mask.numel() for mask in after]
        assert sum(int(mask.sum()) for mask in after) == sum(count_kept(size, sparsity) for size in sizes)
        if by != "global":
            assert [int(mask.sum()) for mask in after] == [count_kept(size, sparsity) for size in sizes]


def test_the_smallest_go_and_their_moments_with_them() -> None:
    """A dense net whose weights and moments are masked by hand, at the same steps, trains along."""
    sparse = net_of()
    optimizer = torch.optim.Adam(sparse.parameters(), lr=0.01)
    dense = densify(copy.deepcopy(sparse))
    other = torch.optim.Adam(dense.parameters(), lr=0.01)
    pruner = GradualPruner(sparse, optimizer, sparsity=0.8, begin=1, end=7, every=2)
    weights: list[Any] = [module.weight for module in dense.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    for number in range(1, 9):
        torch.testing.assert_close(step(sparse, optimizer), step(dense, other))
        pruner.step()
        if number not in (1, 3, 5, 7):
            continue
        with torch.no_grad():
            sparsity = 0.8 - 0.8 * (1 - (number - 1) / 6) ** 3
            for weight in weights:
                kept = count_kept(weight.numel(), sparsity)
                mask = torch.zeros_like(weight).view(-1)
                mask[weight.abs().view(-1).topk(kept).indices] = 1
                for held in (weight, *(one for one in other.state[weight].values() if one.dim())):
                    held.view(-1).mul_(mask)
                weight.register_hook(lambda grad, mask=mask: grad * mask.view_as(grad))


def test_rewinding_restores_early_weights_under_the_mask() -> None:
    net = net_of()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    pruner = GradualPruner(net, optimizer, sparsity=0.5, end=3)
    with pytest.raises(InputError, match="expected a copy of early weights, got none; call remember"):
        pruner.rewind()
    step(net, optimizer)
    early = densify(copy.deepcopy(net))
    pruner.remember()
    for _ in range(3):
        step(net, optimizer)
        pruner.step()
    pruner.rewind()
    assert not optimizer.state
    masks = {name: layer.mask for name, layer in sparse_layers(net).items()}
    now = densify(net)
    with torch.no_grad():
        for name, mask in masks.items():
            weight: Any = early.get_submodule(name.removesuffix(".linear")).weight
            weight *= mask.view(weight.shape)
    for name, held in early.state_dict().items():
        assert torch.equal(now.state_dict()[name], held), name


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"end": 3, "begin": 4}, "expected 0 <= begin <= end, and end and every of at least 1, got begin=4"),
        ({"end": 0}, "got begin=0, end=0"),
        ({"end": 3, "every": 0}, "got begin=0, end=3, every=0"),
        ({"end": 3, "sparsity": 90}, "expected a sparsity"),
        ({"end": 3, "by": "size"}, "expected a known criterion"),
    ],
)
def test_a_schedule_that_is_none_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        GradualPruner(net_of(), **{"sparsity": 0.5, **options})


def test_a_model_that_cannot_be_pruned_is_refused() -> None:
    with pytest.raises(InputError, match="expected a model with sparse layers, got none; call sparsify"):
        GradualPruner(nn.Sequential(nn.Linear(2, 2)), sparsity=0.5, end=1)
    with pytest.raises(InputError, match="expected layers of any sparsity, got pattern '2:4'"):
        GradualPruner(sparsify(nn.Sequential(nn.Linear(4, 4)), "two_four", sparsity=0.5), sparsity=0.75, end=1)


def test_an_optimizer_of_weights_that_are_no_longer_there_is_refused() -> None:
    """Biases are the same before and after: an optimizer of them alone would train no weight, and nobody would be told."""
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    stale = torch.optim.SGD(net.parameters())
    sparsify(net, sparsity=0)
    with pytest.raises(InputError, match="got one that has no weights of its sparse layers; give it to sparsify, or make it"):
        GradualPruner(net, stale, sparsity=0.5, end=1)
    GradualPruner(net, torch.optim.SGD(net[1].parameters()), sparsity=0.5, end=1)  # what is left out is left out on purpose
    for layer in sparse_layers(net).values():
        layer.requires_grad_(requires_grad=False)
    GradualPruner(net, stale, sparsity=0.5, end=1)  # and so are weights that are frozen


def test_a_model_that_was_densified_meanwhile_is_neither_pruned_nor_rewound() -> None:
    net = net_of()
    pruner = GradualPruner(net, sparsity=0.5, end=1)
    pruner.remember()
    densify(net)
    before = copy.deepcopy(net.state_dict())
    for change in (pruner.step, pruner.rewind):
        with pytest.raises(InputError, match=r"got others in their place .* make another GradualPruner"):
            change()
    assert all(torch.equal(net.state_dict()[name], held) for name, held in before.items())
    assert pruner.steps == 0


@pytest.mark.parametrize("rule", MOVING_RULES)
def test_update_rules_take_the_layers_of_any_module(rule: str) -> None:
    net, update = net_of(sparsity=0.5), UPDATES[rule]
    x = normal(0, 5, 8, 2, 4, 4)
    optimizer, layers = torch.optim.Adam(net.parameters(), lr=0.01), sparse_layers(net).values()
    for number in range(3):
        with dense_gradients(layers if update.needs_gradient else []) as gradients:
            step(net, optimizer)
        before = [layer.nnz for layer in layers]
        if update.gradient == "kept":
            gradients = kept_gradients(layers)
        update_masks(layers, update, 0.3, optimizer=optimizer, gradients=gradients, generator=generator(number))
        assert not update.conserves or [layer.nnz for layer in layers] == before
    assert net(x[0]).isfinite().all()


def test_dense_gradients_take_any_leading_dimensions_and_both_places_of_a_layer() -> None:
    net = sparsify(nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6)).double(), sparsity=0.5)
    net[2] = net[0]
    dense = densify(copy.deepcopy(net))
    layers = sparse_layers(net).values()
    for shape in ((2, 3), (4,), ()):
        x = normal(1, *shape, 6)
        dense.zero_grad()
        dense(x).square().sum().backward()
        with dense_gradients(layers) as gradients:
            net(x).square().sum().backward()
        torch.testing.assert_close(gradients[net[0]], dense[0].weight.grad)  # type: ignore[index]
