"""What else PyTorch does with a layer: trace, compile, export and pickle it, run it under autocast and in several threads."""

import copy
import io
import pickle
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

from sparse_models.errors import InputError
from sparse_models.layers import LAYERS, SparseLinear
from sparse_models.models import MLP
from tests.strategies import DEFAULT_LAYERS, OWN_LAYERS, mask_for, normal, of_each_kind, seeds, sizes, widest

# PyTorch traces no creation of a sparse tensor, which that layer is there to show.
TRACED = sorted({*of_each_kind(OWN_LAYERS)} - {"csr_linear"})
KERNELS = ["tiled", "block16", "csr"]


def layer_of(name: str, outputs: int = 33, inputs: int = 300, seed: int = 0) -> SparseLinear:
    dtype = widest(name) if name not in DEFAULT_LAYERS else torch.float32
    weight, bias = (normal(seed + number, *shape, dtype=dtype) for number, shape in enumerate([(outputs, inputs), (outputs,)]))
    return LAYERS[name](weight, mask_for(name, (outputs, inputs), 0.5, seed), bias)


def like(layer: SparseLinear, *leading: int, seed: int = 9) -> Tensor:
    return normal(seed, *leading, layer.in_features, dtype=layer.values.dtype)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("batch", [1, 7])
def test_a_relu_in_place_may_follow(name: str, batch: int) -> None:
    layer = layer_of(name)
    x, y = (like(layer, batch).requires_grad_() for _ in range(2))
    layer(x).relu().square().sum().backward()
    expected = layer.values.grad
    layer.zero_grad()
    result = layer(y)
    result.relu_().square().sum().backward()
    torch.testing.assert_close((y.grad, layer.values.grad), (x.grad, expected))


@pytest.mark.parametrize("name", TRACED)
@pytest.mark.parametrize("batch", [1, 7])
def test_of_an_input_without_numbers_the_output_has_none(name: str, batch: int) -> None:
    """What sizes memory before a network runs gives it tensors of a shape alone, which no kernel may read."""
    layers = layer_of(name), layer_of(name, 5, 33)
    with FakeTensorMode(allow_non_fake_inputs=True):
        x = torch.empty(batch, 300, dtype=layers[0].values.dtype)
        for model in (layers[0], MLP(layers), MLP(layers).eval()):
            for grad in (False, True):
                with torch.set_grad_enabled(grad):
                    output = model(x)
                assert isinstance(output, FakeTensor)
                assert output.shape == (batch, 33 if model is layers[0] else 5)
                assert output.requires_grad == grad


@pytest.mark.parametrize("name", ["tiled", "block16", "fan_in"])
@pytest.mark.parametrize("batch", [1, 7])
def test_flops_are_counted_by_the_weights_that_are_held(name: str, batch: int) -> None:
    layer = layer_of(name)
    x = like(layer, batch).requires_grad_()
    with FlopCounterMode(display=False) as counted:
        output = layer(x)
        forward = counted.get_total_flops()
        output.sum().backward()
    assert forward == 2 * batch * layer.values.numel() == 2 * batch * layer.multiply_adds.forward
    assert counted.get_total_flops() == 3 * forward


@pytest.mark.filterwarnings(
    "ignore:.*torch.jit.trace.* is deprecated", "ignore::torch.jit.TracerWarning"
)  # of what it asks of a shape
@pytest.mark.parametrize("name", TRACED)
@pytest.mark.parametrize("grad", [True, False])
def test_jit_trace_follows_other_inputs(name: str, grad: bool) -> None:
    layer = layer_of(name).eval()
    with torch.set_grad_enabled(grad):
        traced = torch.jit.trace(layer, (like(layer, 7, 3),))
        torch.testing.assert_close(traced(like(layer, 2, 5, seed=1)), layer(like(layer, 2, 5, seed=1)))


@pytest.mark.parametrize("name", TRACED)
@pytest.mark.parametrize("grad", [True, False])
def test_what_make_fx_recorded_follows_other_inputs(name: str, grad: bool) -> None:
    """What no operator of torch made of an input would stand there as a constant."""
    layer = layer_of(name).eval()
    with torch.set_grad_enabled(grad):
        recorded = make_fx(layer)(like(layer, 7))
        torch.testing.assert_close(recorded(like(layer, 7, seed=1)), layer(like(layer, 7, seed=1)))


@pytest.mark.filterwarnings("ignore:The given buffer is not writable:UserWarning")  # PyTorch 2.11 reads what it saved so
@pytest.mark.parametrize("name", TRACED)
def test_an_exported_layer_is_saved_and_takes_other_batches(name: str) -> None:
    layer, file = layer_of(name).eval(), io.BytesIO()
    exported = torch.export.export(layer, (like(layer, 7),), dynamic_shapes=({0: torch.export.Dim("batch", min=2, max=64)},))
    torch.export.save(exported, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    torch.testing.assert_close(loaded(like(layer, 9, seed=1)), layer(like(layer, 9, seed=1)))


@settings(max_examples=10)
@given(sizes, sizes, sizes, seeds)
def test_the_operator_that_is_traced_does_what_the_layer_does(outputs: int, inputs: int, batch: int, seed: int) -> None:
    for name in KERNELS:
        layer = layer_of(name, outputs, inputs, seed)
        x, y = (like(layer, batch, seed=seed).requires_grad_() for _ in range(2))
        layer.product(x).square().sum().backward()
        expected = [x.grad, layer.values.grad, layer.bias.grad]  # type: ignore[union-attr]
        layer.zero_grad()
        layer.traced_product(y).square().sum().backward()
        torch.testing.assert_close([y.grad, layer.values.grad, layer.bias.grad], expected)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", OWN_LAYERS)
def test_a_pickled_layer_is_the_same(name: str) -> None:
    layer = layer_of(name).eval()
    with torch.no_grad():
        expected = layer(like(layer, 1))
        assert torch.equal(pickle.loads(pickle.dumps(layer))(like(layer, 1)), expected)  # noqa: S301  # our own


@pytest.mark.parametrize("name", sorted(set(DEFAULT_LAYERS) - {"csr_linear"}))
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("grad", [True, False])
def test_under_autocast_a_layer_takes_what_the_one_before_gives(name: str, dtype: torch.dtype, grad: bool) -> None:
    layer = layer_of(name)
    for x in (like(layer, 7), like(layer, 7).to(dtype)):
        expected = layer(x.float())
        with torch.autocast("cpu", dtype=dtype), torch.set_grad_enabled(grad):
            found = layer(x)
        torch.testing.assert_close(found.float(), expected, rtol=0.1, atol=0.5)
        if grad:
            found.float().sum().backward()
            assert layer.values.grad is not None
            assert layer.values.grad.dtype == torch.float32


@pytest.mark.parametrize("name", sorted(DEFAULT_LAYERS))
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_layer_converted_to_16_bit_computes_in_it_or_says_that_it_cannot(name: str, dtype: torch.dtype) -> None:
    layer = layer_of(name)
    x = like(layer, 7)
    expected, converted = layer(x), copy.deepcopy(layer).to(dtype)
    if str(dtype).removeprefix("torch.") in layer.dtypes_on("cpu"):
        found = converted(x.to(dtype))
        assert found.dtype == dtype
        torch.testing.assert_close(found.float(), expected, rtol=0.1, atol=0.5)
        found.sum().backward()
        assert converted.values.grad is not None
        assert converted.values.grad.dtype == dtype
    else:
        with pytest.raises(InputError, match=f"got {dtype} on cpu; convert"):
            converted(x.to(dtype))


@pytest.mark.parametrize("name", sorted(DEFAULT_LAYERS))
def test_threads_may_infer_with_one_layer_at_once(name: str) -> None:
    """Some with gradients on, which has `tiled` drop what it holds of a single sample, while others use it."""
    layer, threads = layer_of(name).eval(), 4
    inputs = [like(layer, batch, seed=seed) for seed, batch in enumerate([1, 1, 1, 5] * 2)]
    expected = [layer(x).detach() for x in inputs]
    start = Barrier(threads)

    def infer(number: int) -> bool:
        start.wait()
        right = True
        for step in range(200):
            which = (number + step) % len(inputs)
            with torch.set_grad_enabled(number == 0):
                right = right and torch.allclose(layer(inputs[which]), expected[which], atol=1e-4)
        return right

    with ThreadPoolExecutor(threads) as pool:
        assert all(pool.map(infer, range(threads)))


def test_what_a_single_sample_is_multiplied_by_is_looked_up_once() -> None:
    """Another thread may take it away between two looks: here it does, each time."""
    layer = layer_of("tiled").eval()
    x = like(layer, 1)
    with torch.no_grad():
        expected = layer(x)

    class Vanishing(type(layer.frozen)):  # type: ignore[misc]
        looks = 0

        @property
        def ready(self) -> object:
            self.looks += 1
            return self.held_ready if self.looks % 2 else None

        @ready.setter
        def ready(self, new: object) -> None:
            self.held_ready = new

    frozen: Any = layer.frozen
    ready = frozen.ready
    frozen.__class__, frozen.held_ready = Vanishing, ready
    with torch.no_grad():
        assert torch.equal(layer(x), expected)


@pytest.mark.parametrize("name", KERNELS)
def test_a_second_derivative_is_refused(name: str) -> None:
    layer = layer_of(name)
    x = like(layer, 7).requires_grad_()
    [slope] = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    torch.testing.assert_close(slope, torch.autograd.grad(layer(x).square().sum(), x)[0])
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()
