"""Steps that are alike are made by calls that are ready: they are the definition's, whatever changes between two of them."""

import gc
import weakref
from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import linear

from sparse_models.layers import LAYERS, SparseLinear
from tests.strategies import mask_for, normal

READY = ["tiled", "fan_in", "block4", "block16"]
INPUTS, OUTPUTS, BATCH = 96, 64, 24
STEPS = 4  # the first measures, the second is noted


def layer_of(name: str, inputs: int = INPUTS, outputs: int = OUTPUTS, *, biased: bool = True, seed: int = 0) -> SparseLinear:
    mask = mask_for(name, (outputs, inputs), 0.5, seed)
    weight, bias = normal(seed, outputs, inputs, dtype=torch.float32), normal(seed + 1, outputs, dtype=torch.float32)
    return LAYERS[name](weight, mask, bias if biased else None)


def input_of(layer: SparseLinear, batch: int = BATCH, seed: int = 2, *, turned: bool = True) -> Tensor:
    x = normal(seed, batch, layer.in_features, dtype=torch.float32)
    return (x.t().contiguous().t() if turned else x).requires_grad_()


def check(layer: SparseLinear, x: Tensor, grad: Tensor | None = None, output: Tensor | None = None) -> None:
    """Compare a step's output and gradients with those of the dense definition."""
    own = [tensor for tensor in (x, layer.values, layer.bias) if tensor is not None and tensor.requires_grad]
    weight, dense_x = layer.to_dense().requires_grad_(), x.detach().requires_grad_()
    bias = None if layer.bias is None else layer.bias.detach().requires_grad_()
    expected = linear(dense_x, weight, bias)
    found, off = layer(x) if output is None else output, 1e-4 * max(1.0, len(x) / 500)  # of sums over so many samples
    grad = normal(5, *expected.shape, dtype=torch.float32).t().contiguous().t() if grad is None else grad
    torch.testing.assert_close(found, expected)
    gradients = dict(zip(map(id, own), torch.autograd.grad(found, own, grad), strict=True))
    wanted = torch.autograd.grad(expected, [one for one in (dense_x, weight, bias) if one is not None], grad)
    if x.requires_grad:
        torch.testing.assert_close(gradients[id(x)], wanted[0])
        assert len(x) == 1 or gradients[id(x)].stride() == x.stride()
    if layer.values.requires_grad:
        torch.testing.assert_close(layer.unpack(gradients[id(layer.values)]), wanted[1] * layer.mask, rtol=1e-5, atol=off)
    if layer.bias is not None:
        torch.testing.assert_close(gradients[id(layer.bias)], wanted[2], rtol=1e-5, atol=off)


def made_ready(layer: SparseLinear, x: Tensor) -> SparseLinear:
    for _ in range(STEPS):
        check(layer, x)
    return layer


def looks_up(*_: Any, **__: Any) -> Tensor:
    raise AssertionError("looked up")


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("name", READY)
def test_steps_that_are_alike_look_nothing_up(name: str, biased: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = layer_of(name, biased=biased)
    x = input_of(layer)
    made_ready(layer, x)
    for product in ("multiply", "multiply_transposed", "sample_and_sum"):
        monkeypatch.setattr(type(layer), product, staticmethod(looks_up))
    found = layer(x)
    found.backward(torch.ones_like(found).t().contiguous().t(), inputs=[x, layer.values, layer.bias] if biased else [x])
    with pytest.raises(AssertionError, match="looked up"):
        layer(input_of(layer, BATCH + 1))


@pytest.mark.parametrize("name", READY)
def test_each_step_has_memory_of_its_own(name: str) -> None:
    layer = layer_of(name)
    made_ready(layer, input_of(layer))
    xs = [input_of(layer, seed=seed) for seed in range(3)]
    outputs = [layer(x) for x in xs]
    for x, output in zip(xs, outputs, strict=True):
        check(layer, x, output=output)


def _another_batch(layer: SparseLinear, x: Tensor) -> None:
    check(layer, input_of(layer, BATCH - 1))


def _batch_major(layer: SparseLinear, x: Tensor) -> None:
    check(layer, input_of(layer, turned=False))


def _every_other_column(layer: SparseLinear, x: Tensor) -> None:
    check(layer, normal(6, BATCH, 2 * layer.in_features, dtype=torch.float32)[:, ::2].requires_grad_().clone())


def _spread_gradient(layer: SparseLinear, x: Tensor) -> None:
    check(layer, x, torch.ones(1, 1).expand(len(x), layer.out_features))


def _batch_major_gradient(layer: SparseLinear, x: Tensor) -> None:
    check(layer, x, normal(7, len(x), layer.out_features, dtype=torch.float32))


def _input_without_gradient(layer: SparseLinear, x: Tensor) -> None:
    check(layer, x.detach())


def _frozen_values(layer: SparseLinear, x: Tensor) -> None:
    layer.values.requires_grad_(False)
    check(layer, x)
    layer.values.requires_grad_()


def _values_change(layer: SparseLinear, x: Tensor) -> None:
    with torch.no_grad():
        layer.values.mul_(2)


def _values_elsewhere(layer: SparseLinear, x: Tensor) -> None:
    layer.values.data = layer.values.data * 3


def _values_in_other_strides(layer: SparseLinear, x: Tensor) -> None:
    values, expected = layer.values.data, layer(x)
    layer.values.data = torch.stack([values, values], -1)[..., 0]
    torch.testing.assert_close(layer(x), expected)
    layer.values.data = values


def _bias_elsewhere(layer: SparseLinear, x: Tensor) -> None:
    assert layer.bias is not None
    layer.bias = torch.nn.Parameter(layer.bias.detach() + 1)


def _another_mask(layer: SparseLinear, x: Tensor) -> None:
    name = next(name for name, kind in LAYERS.items() if kind is type(layer))
    layer.set_mask(mask_for(name, (layer.out_features, layer.in_features), 0.5, 11))


def _another_mask_in_place(layer: SparseLinear, x: Tensor) -> None:
    name = next(name for name, kind in LAYERS.items() if kind is type(layer))
    layer.move(mask_for(name, (layer.out_features, layer.in_features), 0.5, 12), in_place=True)


def _fewer_threads(layer: SparseLinear, x: Tensor) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    check(layer, x)
    torch.set_num_threads(threads)


def _other_values_for_a_call(layer: SparseLinear, x: Tensor) -> None:
    values = (layer.values.detach() * 0.5).requires_grad_()
    output = functional_call(layer, {"values": values}, (x,))
    torch.testing.assert_close(output, linear(x, layer.to_dense() * 0.5, layer.bias))
    torch.testing.assert_close(*(torch.autograd.grad(one.sum(), x)[0] for one in (output, linear(x, layer.to_dense() * 0.5))))


def _structure_elsewhere(layer: SparseLinear, x: Tensor) -> None:
    layer.share_memory()  # the same tensors, at other addresses


def _moved_before_its_backward(layer: SparseLinear, x: Tensor) -> None:
    weight, output = layer.to_dense(), layer(x)
    _another_mask(layer, x)
    [found] = torch.autograd.grad(output.sum(), x)
    torch.testing.assert_close(found, torch.ones(len(x), layer.out_features) @ weight)


def _in_another_thread(layer: SparseLinear, x: Tensor) -> None:
    thread = Thread(target=check, args=(layer, x.detach().requires_grad_()))
    thread.start()
    check(layer, x)
    thread.join()


EVENTS: list[Callable[[SparseLinear, Tensor], None]] = [
    _another_batch,
    _batch_major,
    _every_other_column,
    _spread_gradient,
    _batch_major_gradient,
    _input_without_gradient,
    _frozen_values,
    _values_change,
    _values_elsewhere,
    _values_in_other_strides,
    _bias_elsewhere,
    _another_mask,
    _another_mask_in_place,
    _fewer_threads,
    _other_values_for_a_call,
    _structure_elsewhere,
    _moved_before_its_backward,
    _in_another_thread,
]


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("name", READY)
def test_whatever_changes_between_two_steps_both_are_right(name: str, event: Callable[[SparseLinear, Tensor], None]) -> None:
    layer = layer_of(name)
    x = input_of(layer)
    made_ready(layer, x)
    event(layer, x)
    made_ready(layer, x)


@pytest.mark.parametrize("name", ["tiled", "block16"])
def test_a_gradient_that_is_the_input_itself_is_not_taken_for_it(name: str) -> None:
    layer = layer_of(name, 64, 64)
    x = input_of(layer)
    for _ in range(STEPS):
        check(layer, x, x.detach())
    made_ready(layer, x)


@pytest.mark.parametrize(("inputs", "outputs", "batch"), [(90, 62, 24), (96, 64, 2000), (96, 64, 1), (3, 2, 2)])
def test_products_of_more_than_one_call_are_right_each_time(inputs: int, outputs: int, batch: int) -> None:
    for name in READY[:1] + READY[2:]:
        layer = layer_of(name, inputs, outputs)
        made_ready(layer, input_of(layer, batch))


def test_what_a_subclass_does_to_a_product_is_done_each_time() -> None:
    class Doubled(LAYERS["tiled"]):  # type: ignore[misc, name-defined, valid-type]
        @staticmethod
        def multiply(*given: Any) -> Tensor:
            return LAYERS["tiled"].multiply(*given).mul_(2)  # type: ignore[attr-defined,no-any-return]

    plain = layer_of("tiled")
    layer, x = Doubled(plain.to_dense(), plain.mask, plain.bias), input_of(plain)
    for _ in range(STEPS):
        torch.testing.assert_close(layer(x), 2 * plain(x))


@pytest.mark.parametrize("name", READY)
def test_the_structure_before_a_move_is_let_go_of(name: str) -> None:
    layer = layer_of(name)
    x = input_of(layer)
    made_ready(layer, x)
    columns = weakref.ref(layer.columns)
    _another_mask(layer, x)
    gc.collect()
    assert columns() is None
