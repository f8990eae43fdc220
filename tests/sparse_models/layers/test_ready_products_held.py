"""What a call that is ready holds of a layer may change: it is not made with a bias that is gone, nor with memory let go of."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import linear

from sparse_models.kernels.cpu import tiled
from sparse_models.kernels.cpu._team import noted
from sparse_models.layers import SparseLinear
from sparse_models.layers._feature_major.own_kernels import MOST_SIZES, OwnKernels
from sparse_models.layers.tiled import Tiled
from tests.sparse_models.layers.test_ready_products import (
    BATCH,
    EVENTS,
    READY,
    STEPS,
    check,
    input_of,
    layer_of,
    looks_up,
    made_ready,
)
from tests.strategies import normal


@pytest.mark.parametrize("name", READY)
def test_a_layer_may_lose_its_bias_and_have_it_back(name: str) -> None:
    layer = layer_of(name)
    x, bias = input_of(layer), layer.bias
    made_ready(layer, x)
    layer.bias = None
    made_ready(layer, x)
    layer.bias = bias
    made_ready(layer, x)


@pytest.mark.parametrize("name", READY)
def test_a_gradient_that_is_a_negated_view_is_read_as_it_is_meant(name: str) -> None:
    layer = layer_of(name)
    x = input_of(layer)
    grad = normal(5, layer.out_features, len(x), dtype=torch.float32)
    check(layer, x, torch._neg_view(grad).t())  # PyTorch has no public name for it
    made_ready(layer, x)
    check(layer, x, torch._neg_view(grad).t())


@pytest.mark.parametrize("name", READY)
def test_a_structure_may_be_elsewhere_before_a_backward_pass(name: str) -> None:
    layer = layer_of(name)
    x = input_of(layer)
    made_ready(layer, x)
    output, before = layer(x), list[Tensor]()
    for buffer in layer.buffers():
        before.append(buffer.data)
        buffer.data = buffer.data.clone()  # as `share_memory` does before it lets go of what was there
    for place, buffer in zip(before, layer.buffers(), strict=True):
        if buffer is layer.columns or buffer is layer.rows:
            place.zero_()
    check(layer, x, output=output)


@pytest.mark.parametrize("name", READY)
def test_what_a_hook_saved_in_other_strides_is_read_as_it_is_meant(name: str) -> None:
    layer = layer_of(name)
    x = input_of(layer)
    for _ in range(4):
        with saved_tensors_hooks(lambda saved: torch.stack([saved, -saved], -1), lambda saved: saved[..., 0]):
            output = layer(x)
        check(layer, x, output=output)


def test_what_is_noted_within_another_note_is_in_both() -> None:
    layer = layer_of("tiled")
    assert isinstance(layer, Tiled)
    given: tuple[Any, ...] = layer.structures[0], layer.values.detach(), input_of(layer).detach().t().contiguous()
    tiled.product(*given)  # the first of its sizes measures variants
    with noted() as outer:
        tiled.product(*given)
        with noted() as inner:
            tiled.product(*given)
        tiled.product(*given)
    tiled.product(*given)
    assert (len(outer), len(inner)) == (3, 1)


WAYS = [torch.no_grad, torch.inference_mode]


def inferred(layer: SparseLinear, x: Tensor, way: Callable[[], Any]) -> None:
    """See that the layer gives what it holds, each time in memory of its own."""
    with way():
        found = [layer(x) for _ in range(STEPS)]
    expected = linear(x.detach(), layer.to_dense(), layer.bias)
    for one in found:
        torch.testing.assert_close(one, expected)
    assert len({one.data_ptr() for one in found}) == STEPS


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("batch", [1, BATCH])
@pytest.mark.parametrize("name", READY)
def test_inferences_that_are_alike_look_nothing_up(
    name: str, batch: int, way: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = layer_of(name)
    x = input_of(layer, batch)
    inferred(layer, x, way)
    monkeypatch.setattr(type(layer), "multiply", staticmethod(looks_up))
    inferred(layer, x, way)
    with pytest.raises(AssertionError, match="looked up"), way():
        layer(input_of(layer, BATCH + 1))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("name", ["tiled", "block16"])
def test_whatever_changes_between_two_inferences_both_are_right(
    name: str, event: Callable[[SparseLinear, Tensor], None], way: Callable[[], Any]
) -> None:
    for batch in (1, BATCH):
        layer = layer_of(name).eval()
        x = input_of(layer, batch)
        inferred(layer, x, way)
        event(layer, x)
        inferred(layer, x, way)


@given(st.lists(st.integers(1, 3 * MOST_SIZES), max_size=4 * MOST_SIZES))
def test_of_batches_of_any_sizes_few_are_held(batches: list[int]) -> None:
    layer = layer_of("block16")
    assert isinstance(layer, OwnKernels)
    for batch in batches:
        inferred(layer, input_of(layer, batch).detach(), torch.no_grad)
        assert len(layer._ready) <= MOST_SIZES


def test_as_many_sizes_as_may_be_held_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = layer_of("tiled")
    inputs = [input_of(layer, BATCH + number) for number in range(MOST_SIZES)]
    for x in inputs * (STEPS + 1):
        inferred(layer, x, torch.no_grad)
    monkeypatch.setattr(type(layer), "multiply", staticmethod(looks_up))
    for x in inputs:
        inferred(layer, x, torch.no_grad)


def test_a_layer_saved_by_an_earlier_version_infers() -> None:
    layer = layer_of("tiled")
    saved = layer.__getstate__() | {"_ready": None}  # type: ignore[no-untyped-call]
    loaded = object.__new__(type(layer))
    loaded.__setstate__(saved)  # type: ignore[no-untyped-call]
    inferred(loaded, input_of(layer), torch.no_grad)


@pytest.mark.parametrize("way", WAYS)
def test_what_a_subclass_does_to_an_inference_is_done_each_time(way: Callable[[], Any]) -> None:
    class Doubled(Tiled):
        @staticmethod
        def multiply(*given: Any) -> Tensor:
            return Tiled.multiply(*given).mul_(2)

    plain = layer_of("tiled")
    layer, x = Doubled(plain.to_dense(), plain.mask, plain.bias), input_of(plain)
    with way():
        for _ in range(STEPS):
            torch.testing.assert_close(layer(x), 2 * plain(x))
