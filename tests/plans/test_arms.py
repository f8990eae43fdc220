from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune

from bench.models import layers, loading
from bench.plans.arms import DENSE, Arm, Kind, Model, arm_of, default_kinds, swaps_of
from bench.works.whole_models import bytes_of
from sparse_models.errors import GateError
from sparse_models.layers import LAYERS
from sparse_models.sparsification import sparse_layers
from tests import strategies
from tests.helpers.wrong_layers import Inverted

SOURCE = """
import torch
from torch import nn
from torch.nn.utils import prune

class Block(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner, self.last = inner, nn.Linear(5, 5)

    def forward(self, x):
        return self.last(torch.relu(self.inner(x))) + x

def net():
    return nn.Sequential(nn.Linear(7, 5), Block(nn.Linear(5, 5)), nn.ReLU(), nn.Linear(5, 3)), torch.randn(4, 2, 7)

def pruned():
    model, batch = net()
    prune.l1_unstructured(model[0], "weight", amount=0.3)
    return model, batch

def convolutional():
    first, last = nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.Conv2d(4, 3, 1)
    net = nn.Sequential(first, nn.BatchNorm2d(4), nn.ReLU(), last, nn.Flatten(), nn.Linear(12, 5))
    return net, torch.randn(2, 2, 4, 4)

def pruned_convolutional():
    model, batch = convolutional()
    prune.random_unstructured(model[0], "weight", amount=0.4)
    return model, batch

def encoder():
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, 2), torch.randn(2, 3, 8)
"""
NETS = ["net", "pruned", "encoder", "convolutional", "pruned_convolutional"]
KINDS = st.sampled_from([name for name, layer in LAYERS.items() if layer.pattern.is_free and layer.is_default_on("cpu")])


@pytest.fixture(scope="module", autouse=True)
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Models of a user's in the working directory."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "nets.py").write_text(SOURCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield


@given(KINDS, strategies.sparsities, st.sampled_from(NETS), st.data())
def test_what_is_timed_is_what_the_calls_make(layer: str, sparsity: float, name: str, data: st.DataObject) -> None:
    model = Model(f"nets.py:{name}")
    if name.startswith("pruned") and LAYERS[layer].pattern.unit != (1, 1):
        return  # which no blocks hold
    every = st.sampled_from([None, Kind(layer, sparsity), Kind("tiled", sparsity)])
    choices = data.draw(st.lists(every, min_size=len(model.names), max_size=len(model.names)))
    made, timed = model.example.copied, model.sparse(choices)
    for swap in swaps_of(model.names, choices):
        swap.carry_out(made.module, model.given)
    found, expected = sparse_layers(made.module), sparse_layers(timed.module)
    of_convolutions = {name for name, one in model.example.module.named_modules() if isinstance(one, nn.Conv2d)}
    inner = {name: f"{name}.linear" if name in of_convolutions else name for name in model.names}
    kinds = {inner[name]: LAYERS[kind.layer] for name, kind in zip(model.names, choices, strict=True) if kind}
    assert {name: type(one) for name, one in found.items()} == {name: type(one) for name, one in expected.items()} == kinds
    for one in found:
        assert torch.equal(found[one].mask, expected[one].mask)
        assert torch.equal(found[one].values, expected[one].values)


def test_an_arm_is_named_by_what_each_layer_is() -> None:
    kind, other = Kind("tiled", 0.9), Kind("tiled", 0.5)
    assert arm_of([None, None]) == DENSE
    assert arm_of([kind, kind]) == str(kind)
    assert (
        len({arm_of(one) for one in ([kind, None], [None, kind], [kind, other], [other, kind], [kind], [other], [None])}) == 7
    )


def test_what_prune_left_is_kept_and_a_layer_without_a_mask_is_pruned() -> None:
    model = Model("nets.py:pruned")
    whole = loading.load("nets.py:net").copied.module
    assert isinstance(whole, nn.Sequential)
    assert isinstance(whole[0], nn.Linear)
    prune.l1_unstructured(whole[0], "weight", amount=0.3)
    masks = model.masks(Kind("tiled", 0.8))
    left = whole[0].weight_mask
    assert isinstance(left, torch.Tensor)
    assert torch.equal(masks["0"], left.bool())
    assert int(masks["3"].sum()) == 3
    assert int(model.masks(Kind("tiled", 0.8), is_given=False)["0"].sum()) == 7


@pytest.mark.parametrize("op", ["forward", "step"])
@pytest.mark.parametrize("name", ["net", "encoder", "convolutional"])
def test_every_layer_is_timed_in_its_model_and_the_rest_is_left(name: str, op: str) -> None:
    model = Model(f"nets.py:{name}")
    arms = [Arm(model.called, op, model.names), Arm(model.sparse(model.all_of(Kind("tiled", 0.5))), op, model.names)]
    for arm in arms:
        arm()
        learned = [one for one in arm.model.parameters() if one.requires_grad]
        assert {one.grad is not None for one in learned} == {op == "step"}  # a step goes back to what it trains
        lap = arm.lap()
        assert len(lap) == len(model.names) == {"net": 4, "encoder": 4, "convolutional": 3}[name]
        assert min(lap) > 0
        assert arm.lap() == [0.0] * len(lap)


def test_a_fast_path_is_left_by_what_is_called_layer_by_layer_alone() -> None:
    model = Model("nets.py:encoder")
    plain, called = Arm(model.example.copied, "forward", model.names), Arm(model.called, "forward", model.names)
    first, second = plain(), called()
    assert isinstance(first, torch.Tensor)
    assert isinstance(second, torch.Tensor)
    torch.testing.assert_close(first, second)
    assert sum(plain.lap()) == 0 < min(called.lap())
    assert model.has_fast_path
    assert not Model("nets.py:net").has_fast_path


@given(st.floats(0, 1))
def test_kept_is_the_share_of_the_absolute_weights(sparsity: float) -> None:
    model, kind = Model("nets.py:net"), Kind("tiled", sparsity)
    for name, share in zip(model.names, model.kept(kind), strict=True):
        weight = model.example.module.get_submodule(name).weight
        assert isinstance(weight, torch.Tensor)
        absolute = weight.detach().abs().flatten()
        largest = absolute.sort(descending=True).values[: int(model.masks(kind)[name].sum())]
        assert share == pytest.approx(float(largest.sum() / absolute.sum()), abs=1e-6)


def test_bytes_are_those_of_parameters_and_buffers() -> None:
    assert bytes_of(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))) == 4 * (3 * 2 + 2 + 4 * 2) + 8


@pytest.mark.parametrize("name", NETS)
def test_every_net_passes_its_gate(name: str) -> None:
    Model(f"nets.py:{name}").pass_gate(Kind("tiled", 0.5), learning=True)


def test_a_kind_that_computes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAYERS, "tiled", Inverted)
    with pytest.raises(GateError, match="is off that of the dense model"):
        Model("nets.py:net").pass_gate(Kind("tiled", 0.5), learning=False)


def test_kinds_are_those_that_a_trained_layer_can_be_pruned_to() -> None:
    assert {kind.layer for kind in default_kinds(0.9)} == {
        name
        for name, layer in LAYERS.items()
        if layer.is_default_on("cpu") and layer.pattern.is_free and not layer.is_indifferent
    }
    assert [kind.layer for kind in default_kinds(0.5, ["two_four"])] == ["two_four"]
    assert layers.inspected("nets.py:net").sparse
