"""Whole modules, of which layers are made sparse and dense again."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import prune

from sparse_models.errors import InputError
from sparse_models.masks import DISTRIBUTIONS, count_kept
from sparse_models.sparsification import CRITERIA, densify, sparse_layers, sparsify
from tests.strategies import generator, normal, seeds, sparsities

WIDTH = 6


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return torch.add(x, self.inner(x))


@st.composite
def nets(draw: st.DrawFn, most: int = 4) -> nn.Module:
    """A net from WIDTH features to WIDTH: nested, with layers at two places, frozen ones, tied weights, or none at all."""
    torch.manual_seed(draw(seeds))
    made: list[nn.Linear] = []

    def layer() -> nn.Linear:
        kind = draw(st.sampled_from(["new", "new", "shared", "frozen", "tied", "no bias"]))
        if kind == "shared" and made:
            return made[draw(st.integers(0, len(made) - 1))]
        linear = nn.Linear(WIDTH, WIDTH, bias=kind != "no bias", dtype=torch.float64)
        if kind == "tied" and made:
            linear.weight = made[draw(st.integers(0, len(made) - 1))].weight
        linear.weight.requires_grad_(kind != "frozen")
        made.append(linear)
        return linear

    parts: dict[str, Callable[[], nn.Module]] = {
        "linear": layer,
        "relu": nn.ReLU,
        "norm": lambda: nn.LayerNorm(WIDTH, dtype=torch.float64),
        "residual": lambda: Residual(layer()),
        "nested": lambda: nn.Sequential(nn.Tanh(), Residual(nn.Sequential(layer(), nn.Identity()))),
    }
    chosen = draw(st.lists(st.sampled_from(sorted(parts)), max_size=most))
    return nn.Sequential(*(parts[kind]() for kind in chosen))


def tied_in(net: nn.Module) -> set[nn.Module]:
    linears = [module for module in net.modules() if isinstance(module, nn.Linear)]
    return {one for one in linears if any(one is not other and one.weight is other.weight for other in linears)}


@given(nets(), sparsities, seeds, st.sampled_from(sorted(CRITERIA)), st.sampled_from(sorted(DISTRIBUTIONS)))
def test_sparsified_is_masked_dense_and_densified_the_same(
    net: nn.Module, sparsity: float, seed: int, by: str, distribution: str
) -> None:
    x = normal(seed, 2, 3, WIDTH)
    whole, expected = copy.deepcopy(net), net(x)
    tied = tied_in(net)
    free = [module for module in net.modules() if isinstance(module, nn.Linear) and module not in tied]
    if not free:
        with pytest.raises(InputError, match="expected layers to be replaced, got none"):
            sparsify(net, sparsity=sparsity)
        assert torch.equal(net(x), expected)
        return
    before = {name: parameter.requires_grad for name, parameter in net.named_parameters() if not name.endswith("weight")}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert sparsify(net, sparsity=sparsity, by=by, distribution=distribution, generator=generator(seed)) is net
    assert ["tied to" in str(one.message) for one in told] == [True] * bool(tied)
    layers = sparse_layers(net)
    assert len(layers) == len(free)
    masks = {name: layer.mask for name, layer in layers.items()}
    if distribution == "uniform" and by != "global":
        assert all(int(mask.sum()) == count_kept(WIDTH**2, sparsity) for mask in masks.values())
    assert {
        name: one.requires_grad for name, one in net.named_parameters() if not name.endswith(("weight", "values"))
    } == before
    masked = copy.deepcopy(whole)
    with torch.no_grad():
        for name, mask in masks.items():
            masked.get_submodule(name).weight *= mask  # type: ignore[operator]
    torch.testing.assert_close(net(x), masked(x))
    frozen = [layer.values.requires_grad for layer in layers.values()]
    densify(net)
    assert torch.equal(net(x), masked(x))
    assert [net.get_submodule(name).weight.requires_grad for name in masks] == frozen
    assert [str(module) for module in net.modules()] == [str(module) for module in whole.modules()]
    if sparsity == 0:
        assert torch.equal(net(x), expected)


def test_the_largest_of_all_layers_are_kept_together() -> None:
    first, last = nn.Linear(20, 30), nn.Linear(30, 10)
    net = nn.Sequential(first, last)
    with torch.no_grad():
        first.weight.mul_(0.1)
    weights = torch.cat([first.weight.flatten(), last.weight.flatten()]).abs()
    sparsify(net, sparsity=0.7, by="global")
    kept = torch.cat([layer.values for layer in sparse_layers(net).values()]).abs()
    assert torch.equal(kept.sort().values, weights.sort().values[-count_kept(len(weights), 0.7) :])


def named() -> nn.ModuleDict:
    return nn.ModuleDict(
        {
            "first": nn.Linear(4, 8), "second": nn.Sequential(nn.Linear(8, 8), nn.ReLU()), "convolution": nn.Conv2d(3, 4, 1),
            "last": nn.Linear(8, 3),
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ({}, ["first", "second.0", "last"]),
        ({"names": "second*"}, ["second.0"]),
        ({"names": ["first", "l*"]}, ["first", "last"]),
        ({"least": 33}, ["second.0"]),
        ({"types": nn.Conv2d}, ["convolution.linear"]),
        ({"types": (nn.Linear, nn.Conv2d), "names": "*c*"}, ["second.0", "convolution.linear"]),
        ({"masks": {"last": torch.ones(3, 8)}, "sparsity": None}, ["last"]),
        ({"masks": {"convolution": torch.ones(4, 3, 1, 1)}, "names": "first"}, ["first", "convolution.linear"]),
    ],
)
def test_what_is_asked_for_is_replaced(asked: dict[str, Any], names: list[str]) -> None:
    net = sparsify(named(), **{"sparsity": 0.5, **asked})
    assert sorted(sparse_layers(net)) == sorted(names)
    given = sparse_layers(net).get("last") if "masks" in asked else None
    assert given is None or given.nnz == 24


def test_masks_of_prune_are_kept_whatever_the_sparsity() -> None:
    net = named()
    prune.l1_unstructured(net["first"], "weight", 0.25)
    x = torch.randn(2, 4)
    expected = net["first"](x)
    sparsify(net, sparsity=0.9, names=["first", "last"])
    assert [layer.nnz for layer in sparse_layers(net).values()] == [24, 2]
    torch.testing.assert_close(net["first"](x), expected)


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD, torch.optim.RMSprop])
def test_the_optimizer_follows_and_trains_on_as_masked_dense(optimizer: Callable[..., torch.optim.Optimizer]) -> None:
    """There and back: dense weights under a mask, whose gradients are masked, take the same steps."""
    torch.manual_seed(0)
    sparse: nn.Module = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    dense = copy.deepcopy(sparse)
    options = {"momentum": 0.9} if optimizer is torch.optim.SGD else {}
    own, others = (optimizer(net.parameters(), lr=0.01, **options) for net in (sparse, dense))
    x = normal(0, 8, 5)

    def step(net: nn.Module, optimizer: torch.optim.Optimizer, masks: dict[str, Tensor]) -> None:
        optimizer.zero_grad()
        net(x).square().sum().backward()
        for name, mask in masks.items():
            net.get_submodule(name).weight.grad *= mask  # type: ignore[operator]
        optimizer.step()

    for _ in range(3):
        step(sparse, own, {})
        step(dense, others, {})
    sparsify(sparse, sparsity=0.5, optimizer=own)
    masks = {name: layer.mask for name, layer in sparse_layers(sparse).items()}
    with torch.no_grad():
        for name, mask in masks.items():
            weight: Any = dense.get_submodule(name).weight
            weight *= mask
            for held in others.state[weight].values():
                if isinstance(held, Tensor) and held.shape == mask.shape:
                    held.mul_(mask)
    for _ in range(3):
        step(sparse, own, {})
        step(dense, others, masks)
    torch.testing.assert_close(sparse(x), dense(x))
    densify(sparse, optimizer=own)
    assert {*sparse.parameters()} == {one for group in own.param_groups for one in group["params"]} == {*own.state}
    step(sparse, own, masks)
    step(dense, others, masks)
    torch.testing.assert_close(sparse(x), dense(x))


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")
def test_a_transformer_encoder_reads_no_weights_past_its_sparse_layers(padded: bool) -> None:
    """In eval and without gradients it hands all weights to one kernel, but not those of other layers."""
    torch.manual_seed(0)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2).eval()
    x, padding = torch.randn(3, 4, 8), torch.zeros(3, 4, dtype=torch.bool)
    padding[0, 2:] = padded
    with torch.no_grad():
        expected = encoder(x, src_key_padding_mask=padding)
        with pytest.warns(UserWarning, match=r"left dense: layers.0.self_attn.out_proj, layers.1.self_attn.out_proj: expected"):
            sparsify(encoder, sparsity=0)
        assert len(sparse_layers(encoder)) == 4
        found = encoder(x, src_key_padding_mask=padding)
        torch.testing.assert_close(found[~padding], expected[~padding], atol=1e-5, rtol=1e-5)
        densify(encoder)
        assert torch.equal(encoder(x, src_key_padding_mask=padding), expected)
