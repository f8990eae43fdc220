"""What is held of a chain's output between calls: that it is noticed to be old, and let go of."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch

from sparse_models.layers import LAYERS, SparseLinear, block
from sparse_models.layers._feature_major.held_few import HeldFew
from sparse_models.layers._feature_major.held_output import MOST_BATCHES
from sparse_models.layers._feature_major.own_kernels import OwnKernels
from sparse_models.models import MLP, draw
from tests.sparse_models.kernels.test_output import NARROW, WIDE, made
from tests.strategies import generator, mask_for, mlp_of, normal

pytestmark = pytest.mark.usefixtures("poisoned")


def name_of(layer: SparseLinear) -> str:
    return next(name for name, kind in LAYERS.items() if kind is type(layer))


def changed(model: MLP) -> None:
    for parameter in model.parameters():
        parameter.data.mul_(0.5)


def given_other_data(model: MLP) -> None:
    for parameter in model.parameters():
        parameter.data = parameter.data * 0.5


def moved(model: MLP, *, sparsity: float = 0.5) -> None:
    for number, layer in enumerate(model):
        layer.set_mask(mask_for(name_of(layer), layer.mask.shape, sparsity, seed=100 + number))


def layer_replaced(model: MLP) -> None:
    before = list(model)[1]
    model.layers[1] = mlp_of("tiled", draw((before.in_features, before.out_features), generator(4)), 0.5).layers[0].eval()
    model.to(next(model.parameters()).dtype)


def layer_added(model: MLP) -> None:
    model.layers.append(mlp_of("tiled", draw((4, 4), generator(4)), 0.5).layers[0])
    model.to(next(model.parameters()).dtype)


def loaded(model: MLP) -> None:
    layers = list(model)
    sizes = layers[0].in_features, *(layer.out_features for layer in layers)
    model.load_state_dict(made(7, sizes, name_of(layers[0])).state_dict())


def hooked(model: MLP) -> None:
    model.layers[1].register_forward_hook(lambda _, __, output: output * 2)


def forward_replaced(model: MLP) -> None:
    layer = model.layers[1]
    vars(layer)["forward"] = lambda x: type(layer).forward(layer, x) * 2


def threads_changed(_: MLP) -> None:
    torch.set_num_threads(3)


EVENTS: list[Callable[[MLP], object]] = [
    changed,
    given_other_data,
    moved,
    lambda model: moved(model, sparsity=0.9),
    layer_replaced,
    hooked,
    forward_replaced,
    threads_changed,
    loaded,
    lambda model: model.double() if next(model.parameters()).dtype == torch.float32 else model.float(),
    lambda model: model.train(not model.training),
    layer_added,
]


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize(
    ("layer", "sizes", "batch"),
    [("tiled", NARROW, 1), ("tiled", NARROW, 40), ("tiled", WIDE, 1), ("block4", NARROW, 1), ("block4", NARROW, 40)],
)
def test_whatever_happens_between_two_outputs_the_second_is_that_of_layer_by_layer(
    event: Callable[[MLP], object], layer: str, sizes: tuple[int, ...], batch: int
) -> None:
    model = made(0, sizes, layer)
    with torch.no_grad():
        for _ in range(3):
            model(normal(0, batch, sizes[0], dtype=next(model.parameters()).dtype))
        few = vars(model.layers[0]).get("_few", {})
        assert any(isinstance(one, HeldFew) for one in few.values()) == (sizes == WIDE)
        assert vars(model.layers[0]).get("_held") is not None or sizes == WIDE
        event(model)
        x = normal(1, batch, sizes[0], dtype=next(model.parameters()).dtype)
        hidden = x
        for number, own in enumerate(copy.deepcopy(model)):
            hidden = own(torch.relu(hidden) if number else hidden)
        for _ in range(3):
            torch.testing.assert_close(model(x), hidden)


@pytest.mark.parametrize(("sizes", "batch"), [(NARROW, 40), (WIDE, 1)])
def test_a_negated_view_is_read_as_it_is_meant_also_where_an_output_is_held(sizes: tuple[int, ...], batch: int) -> None:
    model = made(0, sizes)
    x = normal(0, batch, sizes[0], dtype=next(model.parameters()).dtype)
    with torch.no_grad():
        for _ in range(3):
            model(x)
        torch.testing.assert_close(model(torch._neg_view(x)), model(-x))


def test_copies_hold_none_of_it_and_few_sizes_are_held() -> None:
    model = mlp_of("tiled", draw((12, 16, 8, 4), generator(0)), 0.5)
    with torch.no_grad():
        for batch in range(1, 3 * MOST_BATCHES):
            expected = model(normal(0, batch, 12))
            for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301  # our own
                assert vars(other.layers[0]).get("_held") is None
                assert torch.equal(other(normal(0, batch, 12)), expected)
    [layer, *_] = model
    assert isinstance(layer, OwnKernels)
    assert layer._held is not None
    assert len(layer._held.by_batch) <= MOST_BATCHES


def test_of_many_weights_in_blocks_a_single_sample_goes_layer_by_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    for sizes, is_whole in ((NARROW, True), ((*NARROW[:-1], 3), False)):
        model = made(0, sizes, layer="block4")
        weights = sum(layer.values.numel() for layer in model)
        for most, is_held in ((weights - 1, False), (weights, True)):
            monkeypatch.setattr(block, "MOST_OF_A_SAMPLE", {True: most * is_whole / 3, False: most * (1 - is_whole)})
            with torch.no_grad():
                model(normal(0, 1, NARROW[0]))
            assert (vars(model.layers[0]).get("_held") is not None) == is_held


@pytest.mark.parametrize("batch", [1, 3])
def test_a_small_last_layer_that_is_dense_is_in_the_one_call_for_few_samples(batch: int) -> None:
    """As an Erdos-Renyi distribution leaves it: a bitmap, which is a dense layer's form, is none of a chain."""
    model, x = made(0, (300, 270, 264, 10)).float().eval(), torch.randn(batch, 300)
    last = list(model)[-1]
    last.set_mask(torch.ones_like(last.mask))
    with torch.no_grad():
        last.values.copy_(torch.randn_like(last.values))
        first, *others = (model(x) for _ in range(4))
        held = vars(model.layers[0])["_few"]
        assert set(held) == {batch}
        for found in others:
            torch.testing.assert_close(found, first)
        hidden = x.double()
        for number, layer in enumerate(model):
            assert layer.bias is not None
            hidden = (torch.relu(hidden) if number else hidden) @ layer.to_dense().double().t() + layer.bias.double()
        torch.testing.assert_close(first.double(), hidden, rtol=1e-5, atol=1e-5)


def test_an_output_with_a_graph_goes_layer_by_layer() -> None:
    model = mlp_of("tiled", draw((12, 16, 8, 4), generator(0)), 0.5)
    x = normal(0, 40, 12)
    with torch.no_grad():
        model(x)
    assert model(x).requires_grad
    asked = x.clone().requires_grad_()
    with torch.no_grad():
        assert not model(asked).requires_grad
