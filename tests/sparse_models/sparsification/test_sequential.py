"""A user's nn.Sequential that infers its sparse layers in one call: what it was before, in all but time."""

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sparse_models import SparseSequential, densify, sparse_layers, sparsify, update_masks
from sparse_models.kernels.cpu.few import bitmap
from sparse_models.layers import SparseLinear
from sparse_models.layers._feature_major.held_few import HeldFew
from sparse_models.layers.tiled import Tiled
from sparse_models.updates import UPDATES
from tests.strategies import generator, mask_for, normal, seeds

WIDTH = 70  # at which kernels for few samples take windows


def linear() -> nn.Module:
    return nn.Linear(WIDTH, WIDTH)


def plain(net: nn.Module) -> nn.Module:
    """A copy that goes layer by layer."""
    other = copy.deepcopy(net)
    for module in other.modules():
        if isinstance(module, SparseSequential):
            module.__class__ = nn.Sequential  # type: ignore[assignment]
    return other


def mlp(layer: str = "tiled", **options: Any) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(linear(), nn.ReLU(), nn.Dropout(), linear(), nn.Identity(), nn.ReLU(), nn.Linear(WIDTH, 10))
    return sparsify(net, layer, sparsity=0.7, **options).eval()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of layers of each chain that was one call."""
    seen: list[int] = []
    whole = Tiled.chain_output.__func__  # type: ignore[attr-defined]

    def spy(cls: type[Tiled], layers: list[SparseLinear], x: Tensor) -> Tensor | None:
        found: Tensor | None = whole(cls, layers, x)
        seen.extend([len(layers)] * (found is not None))
        return found

    monkeypatch.setattr(Tiled, "chain_output", classmethod(spy))
    return seen


@st.composite
def nets(draw: st.DrawFn, most: int = 7, depth: int = 2) -> nn.Sequential:
    """A net from WIDTH features to WIDTH, with chains, what stands among them, what ends them, and nets inside."""
    parts: dict[str, Callable[[], nn.Module]] = {
        "linear": linear,
        "relu": lambda: nn.ReLU(inplace=draw(st.booleans())),
        "dropout": nn.Dropout,
        "identity": nn.Identity,
        "norm": lambda: nn.LayerNorm(WIDTH),
        "flatten": lambda: nn.Flatten(-1),
    }
    kinds = st.sampled_from([*["linear", "relu"] * 3, "dropout", "identity", "norm", "flatten", *["nested"] * (depth > 0)])
    chosen = draw(st.lists(kinds, max_size=most))
    return nn.Sequential(*(draw(nets(depth=depth - 1)) if kind == "nested" else parts[kind]() for kind in chosen))


@settings(max_examples=30)
@given(
    nets(), seeds, st.sampled_from([(1,), (2,), (5,), (40,), (2, 3), (), (0,)]), st.sampled_from(["tiled", "block16", "csr"])
)
def test_it_gives_what_its_layers_give_one_by_one(net: nn.Sequential, seed: int, leading: tuple[int, ...], layer: str) -> None:
    if not any(isinstance(module, nn.Linear) for module in net.modules()):
        return
    sparsify(net, layer, sparsity=0.7).eval()
    one_by_one, x = plain(net), normal(seed, *leading, WIDTH, dtype=torch.float32)
    with torch.no_grad():
        expected = one_by_one(x.clone())
        for _ in range(3):
            torch.testing.assert_close(net(x.clone()), expected)
    assert list(net.state_dict()) == list(one_by_one.state_dict())
    kinds = {type(module) for module in densify(net).modules()}
    assert SparseSequential not in kinds


@pytest.mark.parametrize("batch", [1, 2, 40])
def test_a_chain_is_one_call_wherever_it_stands(calls: list[int], batch: int) -> None:
    net, x = mlp(), normal(0, batch, WIDTH, dtype=torch.float32)
    inner = sparsify(nn.Sequential(linear(), nn.Sequential(nn.ReLU(), linear()), nn.Tanh(), linear()), sparsity=0.7).eval()
    with torch.inference_mode():
        for _ in range(2):
            calls.clear()
            net(x)
            nn.Sequential(nn.Flatten(), inner)(x[:, :, None])
    assert calls == [3, 2]
    assert type(sparsify(nn.Sequential(linear(), linear()), sparsity=0.7)) is nn.Sequential


@pytest.mark.skipif(not bitmap.is_possible(torch.float32), reason="all layers are slices, and one call")
def test_what_is_no_one_call_is_asked_for_again_where_it_may_be(calls: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    net, x, asked = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256)), torch.randn(1, 256), list[int]()
    sparsify(net, sparsity=0.2).eval()  # which are bitmaps
    made = HeldFew.made

    def spy(layers: list[Tiled], batch: int) -> HeldFew | None:
        asked.append(batch)
        return made(layers, batch)

    monkeypatch.setattr(HeldFew, "made", spy)
    with torch.no_grad():
        for _ in range(3):
            net(x)
        asked.clear()
        for change in (lambda _: None, halved, given_other_data):
            change(net)
            for _ in range(3):
                torch.testing.assert_close(net(x), plain(net)(x))
        assert not asked + calls
        moved(net, sparsity=0.9)
        for _ in range(3):
            torch.testing.assert_close(net(x), plain(net)(x))
    assert calls == [2, 2]


@pytest.mark.parametrize("watched", ["0", "1", "2", "all"])
@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
def test_hooks_inside_are_called(calls: list[int], register: str, watched: str) -> None:
    net, x, called = mlp(), normal(0, 1, WIDTH, dtype=torch.float32), list[str]()
    with torch.no_grad():
        for _ in range(2):
            net(x)
        calls.clear()
        if watched == "all":
            hook = getattr(nn.modules.module, f"register_module_{register[len('register_') :]}")
            handle = hook(lambda module, *_: called.append(type(module).__name__))
        else:
            handle = getattr(net[int(watched)], register)(lambda module, *_: called.append(type(module).__name__))
        net(x)
        handle.remove()
        assert (len(called), calls) == (8 if watched == "all" else 1, [])
        net(x)
    assert calls == [3]


def replaced(net: nn.Sequential) -> None:
    net[3] = sparsify(nn.Sequential(linear()), sparsity=0.5)[0].eval()


def halved(net: nn.Sequential) -> None:
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(0.5)


def given_other_data(net: nn.Sequential) -> None:
    for parameter in net.parameters():
        parameter.data = parameter.data * 0.5


def moved(net: nn.Sequential, *, sparsity: float = 0.4) -> None:
    for number, layer in enumerate(sparse_layers(net).values()):
        layer.set_mask(mask_for("tiled", layer.mask.shape, sparsity, seed=number))


def moved_in_place(net: nn.Sequential) -> None:
    layers = sparse_layers(net).values()
    update_masks(layers, UPDATES["set"], 0.5, generator=generator(0), in_place=True)


def calls_another(net: nn.Sequential) -> None:
    net[1].forward = torch.tanh


EVENTS: dict[str, Callable[[nn.Sequential], object]] = {
    "weights change": halved,
    "other data": given_other_data,
    "other masks": moved,
    "other masks of as many": lambda net: moved(net, sparsity=0.7),
    "other masks in place": moved_in_place,
    "a state is loaded": lambda net: net.load_state_dict(mlp().state_dict()),
    "a layer is replaced": replaced,
    "a module is replaced": lambda net: net.__setitem__(1, nn.Tanh()),
    "a module is added": lambda net: net.append(nn.Tanh()),
    "a module is removed": lambda net: net.__delitem__(-1),
    "in training": lambda net: net[1].train(),
    "no bias": lambda net: setattr(net[0], "bias", None),
    "float64": lambda net: net.double(),
    "bfloat16": lambda net: net.bfloat16(),
    "another forward": calls_another,
    "in memory that is shared": lambda net: net.share_memory(),
    "trained and back": lambda net: net.train() and net.eval(),
}


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("batch", [1, 2, 40])
def test_whatever_happens_between_two_outputs_the_second_is_that_of_layer_by_layer(event: str, batch: int) -> None:
    net, x = mlp(), normal(0, batch, WIDTH, dtype=torch.float32)
    with torch.no_grad():
        for _ in range(3):
            net(x)
        EVENTS[event](net)
        x = x.to(next(net.parameters()).dtype)
        expected = plain(net)(x)
        for _ in range(3):
            torch.testing.assert_close(net(x), expected)


@pytest.mark.parametrize("batch", [1, 2])
def test_hooks_are_called_that_are_put_where_all_were_thrown_away(batch: int) -> None:
    net, x, called = mlp(), normal(0, batch, WIDTH, dtype=torch.float32), list[nn.Module]()
    with torch.no_grad():
        for _ in range(3):
            net(x)
        for module in (net[0], net[1]):
            module._forward_hooks = OrderedDict()
            module.register_forward_hook(lambda module, *_: called.append(module))
        net(x)
    assert called == [net[0], net[1]]


def test_a_dropout_that_is_in_training_drops() -> None:
    net, x = mlp(), normal(0, 1, WIDTH, dtype=torch.float32)
    with torch.no_grad():
        expected = [net(x) for _ in range(3)]
        net[2].train()
        assert not torch.equal(net(x), net(x))
        net[2].eval()
        assert torch.equal(net(x), expected[-1])


@pytest.mark.parametrize("batch", [1, 40])
def test_gradients_and_autocast_go_layer_by_layer(batch: int) -> None:
    net, x = mlp(), normal(0, batch, WIDTH, dtype=torch.float32)
    with torch.no_grad():
        expected = [net(x) for _ in range(3)][-1]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(net(x).float(), plain(net)(x).float())
    asked = x.clone().requires_grad_()
    torch.testing.assert_close(net(asked), expected)
    net(asked).sum().backward()
    assert asked.grad is not None
    assert net[0].values.grad is not None
