"""A whole network is gated against itself dense under the same masks, and a step of it trains every weight that it keeps."""

import copy
from collections.abc import Callable, Mapping

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bench.models.loading import Example
from bench.works.whole_model_gate import gate_compiled, gate_model
from bench.works.whole_models import OPERATIONS, as_it_is, masked, model_work, output_gradient, sparsified
from sparse_models.errors import GateError, InputError
from sparse_models.layers import LAYERS
from sparse_models.sparsification import sparse_layers
from sparse_models.sparsification.places import Wanted, candidates
from tests.sparse_models.sparsification.test_sparsify import WIDTH, nets
from tests.strategies import FLOAT64_LAYERS, SPARSE_LAYERS, mask_for, normal, seeds, sparsities

FREE = sorted({*FLOAT64_LAYERS} & {name for name in SPARSE_LAYERS if LAYERS[name].pattern.of_network is None})
Masks = Mapping[str, Tensor]


def chooser(layer: str, sparsity: float, seed: int) -> Callable[[nn.Module], Masks]:
    """Random masks of a layer's pattern for all linear layers of a network that can be sparse, by the first of their names."""

    def choose(module: nn.Module) -> Masks:
        found, _ = candidates(module, Wanted(None, (nn.Linear,), 0), {})
        return {
            places[0].name: mask_for(layer, one.weight.shape, sparsity, seed)  # type: ignore[arg-type]
            for one, places in found.items()
        }

    return choose


def examples(net: nn.Module) -> Example:
    return Example(net, (normal(0, 4, WIDTH),))


def has_layers(net: nn.Module) -> bool:
    return any(isinstance(module, nn.Linear) for module in net.modules())


@settings(max_examples=8)
@given(st.sampled_from(FREE), nets(), sparsities, seeds, st.integers(0, 1))
def test_every_layer_passes_in_any_network(layer: str, net: nn.Module, sparsity: float, seed: int, attempt: int) -> None:
    assume(has_layers(net))
    learning = any(one.requires_grad for one in net.parameters())

    def sparse(module: nn.Module, masks: Masks) -> nn.Module:
        return sparsified(module, masks, layer)

    gate_model(examples(net), chooser(layer, sparsity, seed), sparse, attempt, learning=learning)


def plain_net(dropout: float = 0.5) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(WIDTH, 9), nn.Dropout(dropout), nn.ReLU(), nn.Linear(9, 9), nn.BatchNorm1d(9), nn.Linear(9, 2)
    )
    return net.double()


class Padded(nn.Module):
    """A transformer with dropout, whose last places are padding."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True, dtype=torch.float32)
        self.encoder = nn.TransformerEncoder(layer, 2)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        return self.encoder(x, src_key_padding_mask=padding)  # type: ignore[no-any-return]


@pytest.mark.parametrize("layer", ["tiled", "csr"])
def test_neither_dropout_nor_padding_nor_a_last_normalisation_fails_a_network(layer: str) -> None:
    torch.manual_seed(0)
    batch = torch.randn(16, 5, 8), torch.arange(5).expand(16, 5) > 2

    def sparse(module: nn.Module, masks: Masks) -> nn.Module:
        return sparsified(module, masks, layer)

    gate_model(Example(Padded(), batch), chooser(layer, 0.5, 0), sparse, learning=True)


def wrong_weight(module: nn.Module, masks: Masks) -> nn.Module:
    made = sparsified(module, masks, "tiled")
    with torch.no_grad():
        sparse_layers(made)["3"].values[0] *= 1.1
    return made


def wrong_mask(module: nn.Module, masks: Masks) -> nn.Module:
    return sparsified(module, {name: mask.roll(1, 0) for name, mask in masks.items()}, "tiled")


def left_dense(module: nn.Module, masks: Masks) -> nn.Module:
    return module


@pytest.mark.parametrize("wrong", [wrong_weight, wrong_mask, left_dense])
def test_a_network_that_puts_out_something_else_is_not_timed(wrong: Callable[[nn.Module, Masks], nn.Module]) -> None:
    for learning in (False, True):
        with pytest.raises(GateError, match=r"its output is off that of the dense model under the same masks by .*"):
            gate_model(examples(plain_net()), chooser("tiled", 0.5, 0), wrong, learning=learning)


class Reading(nn.Module):
    """A layer, and something else than its output that is read."""

    def __init__(self, read: Callable[["Reading"], Tensor]) -> None:
        super().__init__()
        self.fc, self.read = nn.Linear(WIDTH, 3).double(), read

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) + self.read(self)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("read", "error", "told"),
    [
        (lambda net: net.fc.weight.sum(), GateError, "expected a network that calls its layers, got one that reads 'weight'"),
        (lambda net: net.nothing, AttributeError, "object has no attribute 'nothing'"),
    ],
)
def test_a_network_that_reads_the_weight_of_a_layer_is_told_in_a_sentence(
    read: Callable[[Reading], Tensor], error: type[Exception], told: str
) -> None:
    def sparse(module: nn.Module, masks: Masks) -> nn.Module:
        return sparsified(module, masks, "tiled")

    with pytest.raises(error, match=told):
        gate_model(examples(Reading(read)), chooser("tiled", 0.5, 0), sparse, learning=False)


def test_gradients_that_are_wrong_are_seen_where_they_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    product = LAYERS["tiled"].product

    def scaled(self: nn.Module, x: Tensor) -> Tensor:
        result = product(self, x)  # type: ignore[arg-type]
        return result.detach() + 1.1 * (result - result.detach())

    monkeypatch.setattr(LAYERS["tiled"], "product", scaled)

    def sparse(module: nn.Module, masks: Masks) -> nn.Module:
        return sparsified(module, masks, "tiled")

    gate_model(examples(plain_net()), chooser("tiled", 0.5, 0), sparse, learning=False)
    with pytest.raises(GateError, match=r"the gradient of .* is off"):
        gate_model(examples(plain_net()), chooser("tiled", 0.5, 0), sparse, learning=True)


def test_a_step_trains_what_is_not_frozen_and_a_forward_pass_nothing() -> None:
    net = plain_net()
    net[3].requires_grad_(requires_grad=False)
    before = copy.deepcopy(net.state_dict())
    model_work("model", examples(net))()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    model_work("model_step", examples(net))()
    changed = {name for name, value in net.named_parameters() if not torch.equal(value, before[name])}
    assert changed >= {name for name, _ in net.named_parameters() if not name.startswith("3.")} - {
        "4.weight",
        "0.bias",
        "3.bias",
    }
    assert not {"3.weight", "3.bias"} & changed


def test_every_step_goes_back_from_the_same_gradient() -> None:
    one, other = (output_gradient(torch.ones(2, 3, dtype=dtype)) for dtype in (torch.float32, torch.float64))
    assert torch.equal(one.double(), other)
    assert len(one.unique()) == 6


@pytest.mark.parametrize("op", OPERATIONS)
def test_a_compiled_network_must_do_as_the_eager_one(op: str) -> None:
    """Another function stands in for the compiler, which takes seconds."""
    learning = op == "model_step"

    def checked(run_as: Callable[..., Callable[..., object]], dropout: float = 0.0) -> None:
        own, eager = examples(plain_net(dropout)), examples(plain_net(dropout))
        gate_compiled(model_work(op, own, run_as), own, eager, learning=learning)

    def wrong(function: Callable[..., Tensor]) -> Callable[..., object]:
        return lambda *parts: 1.1 * function(*parts)

    checked(as_it_is)
    with pytest.raises(GateError, match="is off"):
        checked(wrong)
    if learning:
        checked(wrong, 0.5)  # what drops out is another's each time: gradients tell nothing then


def test_masked_is_zero_outside_masks_and_the_same_within() -> None:
    net = plain_net()
    weight = net.get_parameter("3.weight").detach().clone()
    mask = mask_for("tiled", weight.shape, 0.5)
    assert torch.equal(masked(net, {"3": mask}).get_parameter("3.weight"), weight * mask)


def test_a_mask_that_a_layer_cannot_hold_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"^3: Block4x4: expected a mask of pattern"):
        sparsified(plain_net(), {"3": mask_for("tiled", (9, 9), 0.5)}, "block4")
