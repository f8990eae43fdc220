"""Layers that hold packed copies of their weights for few samples: whatever changes weights, bias or mask, they follow."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.utils import prune

from sparse_models.errors import InputError
from sparse_models.kernels.cpu import _team
from sparse_models.kernels.cpu._arithmetic import name_of
from sparse_models.kernels.cpu.few import bitmap, frozen, sliced
from sparse_models.layers import LAYERS, SparseLinear
from sparse_models.layers.tiled import Tiled
from sparse_models.masks import random_mask
from sparse_models.models import MLP
from sparse_models.training import OPTIMIZERS
from sparse_models.updates import move_mask
from tests.helpers.kernel_checks import close
from tests.sparse_models.kernels.test_few_samples import DTYPES, agrees
from tests.sparse_models.kernels.test_output import WIDE, made
from tests.strategies import generator, mask_for, normal

pytestmark = pytest.mark.usefixtures("poisoned")
LAYER_DTYPES = [dtype for dtype in DTYPES if name_of(dtype) in Tiled.dtypes_on("cpu")]


def multiplied(layer: Tiled, x: Tensor) -> Tensor:
    return x.double() @ layer.to_dense().double().t() + (0 if layer.bias is None else layer.bias.detach().double())


BATCHES = [batch for batch in (1, 2, 8) if batch <= frozen.largest_batch()]
FEW = [(batch, dtype) for batch in BATCHES for dtype in [torch.float32, torch.float64] if batch <= sliced.most_samples(dtype)]
each_few = pytest.mark.parametrize(("batch", "dtype"), FEW, ids=str)


def layer_and_samples(bias: bool = True, batch: int = 1, dtype: torch.dtype = torch.float32) -> tuple[Tiled, Tensor]:
    weight, x = normal(0, 20, 300, dtype=dtype), normal(1, batch, 300, dtype=dtype)
    return Tiled(weight, random_mask((20, 300), 0.7, generator(0)), normal(2, 20, dtype=dtype) if bias else None).eval(), x


def holds(layer: Tiled, x: Tensor) -> None:
    """See that the layer gives what it holds, by its kernel for so many samples, twice and both times anew."""
    with torch.no_grad():
        first, second = layer(x), layer(x)
    agrees(first, multiplied(layer, x), x.dtype)
    assert torch.equal(first, second)
    assert first.data_ptr() != second.data_ptr()
    assert isinstance(layer.frozen, frozen.Frozen)
    assert len(x) in layer.frozen.ready


@pytest.mark.parametrize("bias", [True, False])
@each_few
def test_a_layer_follows_its_weights_its_bias_and_its_mask(batch: int, dtype: torch.dtype, bias: bool) -> None:
    layer, x = layer_and_samples(bias, batch, dtype)
    holds(layer, x)
    with torch.no_grad():
        layer.values.mul_(2)
        holds(layer, x)
        layer.values = torch.nn.Parameter(layer.values * 3)
        holds(layer, x)
        if layer.bias is not None:
            layer.bias.add_(1)
            holds(layer, x)
            layer.bias = torch.nn.Parameter(layer.bias * 3)
            holds(layer, x)
    for number, in_place in enumerate([False, True]):
        move_mask(layer, random_mask((20, 300), 0.7, generator(number + 1)), in_place=in_place)
        holds(layer, x)
    move_mask(layer, random_mask((20, 300), 0.5, generator(3)))
    holds(layer, x)
    holds(layer, 2 * x)
    layer.load_state_dict(layer_and_samples(bias, batch, dtype)[0].state_dict())
    holds(layer, x)
    holds(copy.deepcopy(layer), x)
    holds(layer.float(), x.float())


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_step_in_eval_mode_is_seen_though_optimizers_of_one_kernel_count_no_change(optimizer: str, batch: int) -> None:
    layer, x = layer_and_samples(batch=batch)
    holds(layer, x)
    chosen = OPTIMIZERS[optimizer](layer.parameters(), lr=0.1)
    for learned in (1, 3):
        layer(x[:1].expand(learned, -1)).sum().backward()
        chosen.step()
        holds(layer, x)


def test_copies_for_one_sample_and_for_more_both_follow_the_weights() -> None:
    layer, x = layer_and_samples(batch=2)
    for _ in range(2):
        for samples in (x, x[:1], x):
            holds(layer, samples)
        with torch.no_grad():
            layer.values.mul_(2)
    move_mask(layer, random_mask((20, 300), 0.7, generator(1)))
    for samples in (x[:1], x):
        holds(layer, samples)


@pytest.mark.parametrize("batch", BATCHES)
def test_a_copy_made_in_inference_mode_is_made_anew_out_of_it(batch: int) -> None:
    layer, x = layer_and_samples(batch=batch)
    with torch.inference_mode():
        layer(x)
    for way in (torch.no_grad, torch.inference_mode, torch.no_grad):
        with torch.no_grad():
            layer.values.mul_(2)
        with way():
            agrees(layer(x), multiplied(layer, x), x.dtype)
        holds(layer, x)


def test_what_is_not_as_it_was_is_looked_up_again() -> None:
    layer, x = layer_and_samples(bias=False)
    holds(layer, x)
    with torch.no_grad():
        close(layer(x.repeat(9, 1))[1:2], layer(x))
        assert layer(x[:0]).shape == (0, 20)
        with pytest.raises(InputError, match="expected an input of"):
            layer(x.double())
        close(layer(x.t().repeat(1, 2).t()[:1]), layer(x))
        wide = torch.cat([x, x], 1)[:, ::2]
        agrees(layer(wide), multiplied(layer, wide), x.dtype)
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        holds(layer, x)
        assert isinstance(layer.frozen, frozen.Frozen)
        assert layer.frozen.ready[1].team == 1
        torch.set_num_threads(before)
        prune.custom_from_mask(layer, "values", torch.arange(layer.nnz) % 2)
        close(layer(x), x @ layer.unpack(layer.values).t())


def test_a_bias_that_lies_where_the_layers_own_does_is_not_taken_for_it() -> None:
    layer, x = layer_and_samples()
    holds(layer, x)
    assert layer.bias is not None
    bias = layer.bias.detach()[:1].expand(20)
    with torch.no_grad():
        close(functional_call(layer, {"bias": bias}, (x,)), layer(x) - layer.bias + bias)
        with pytest.raises(InputError, match="a bias of shape"):
            functional_call(layer, {"bias": bias.double()}, (x,))


def of_other_views(layer: SparseLinear, which: str) -> None:
    """Put another view of the memory of values or bias, which begins where that does, in its place."""
    values, bias = layer.values, layer.bias
    assert bias is not None
    if which == "values":
        values.data = values.data.t() if values.dim() == 2 else values.data[:1].expand(values.shape)
    elif which == "bias":
        bias.data = bias.data[:1].expand(bias.shape)
    elif which == "negated values":
        values.data = torch._neg_view(values.data)
    else:
        bias.data = bias.data.as_strided(bias.shape, (2,))


@pytest.mark.parametrize("name", ["tiled", "block16", "input_skipping"])
@pytest.mark.parametrize("which", ["values", "bias", "negated values", "longer strides"])
@pytest.mark.parametrize("batch", [1, 2, 40])
def test_another_view_that_begins_where_weights_did_is_not_taken_for_them(name: str, which: str, batch: int) -> None:
    layer = LAYERS[name](normal(0, 80, 80).float(), mask_for(name, (80, 80), 0.7, 0), torch.randn(160)[:80]).eval()
    net, x = MLP([layer, copy.deepcopy(layer)]), torch.randn(batch, 80)
    layer.bias = torch.nn.Parameter(torch.randn(160)[:80])
    with torch.no_grad():
        for _ in range(3):
            layer(x), net(x)
        of_other_views(layer, which)
        first = torch.nn.functional.linear(x, layer.to_dense(), layer.bias)
        for module, expected in ((layer, first), (net, list(net)[1](first.relu()))):
            for _ in range(2):
                try:
                    found = module(x)
                except InputError:  # what kernels do not read as it is meant, they refuse
                    continue
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_another_index_for_one_call_is_used() -> None:
    layer, other = (Tiled(torch.ones(80, 80), mask_for("fan_in", (80, 80), 0.7, seed)).eval() for seed in (0, 1))
    x = torch.randn(1, 80)
    with torch.no_grad():
        for _ in range(3):
            layer(x)
        torch.testing.assert_close(functional_call(layer, dict(other.named_buffers()), (x,)), x @ other.mask.float().t())


def test_a_layer_counts_the_bytes_that_its_last_product_read() -> None:
    layer, x = layer_and_samples()
    before = layer.weight_bytes
    with torch.no_grad():
        layer(x)
    structure = layer.structures[0]
    assert layer.weight_bytes == sliced.pack(structure, layer.values).bytes_read != before


@pytest.mark.parametrize("dtype", [dtype for dtype in LAYER_DTYPES if dtype.itemsize == 2])
@pytest.mark.parametrize("batch", [2, 8])
def test_few_samples_in_16_bit_are_what_the_layer_holds_where_no_kernel_is_for_them(
    monkeypatch: pytest.MonkeyPatch, batch: int, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(bitmap, "LARGEST_BATCH", 1)
    weight, x, bias = (normal(seed, *shape).to(dtype) for seed, shape in enumerate([(20, 300), (batch, 300), (20,)]))
    layer = Tiled(weight, random_mask((20, 300), 0.95, generator(0)), bias).eval()
    assert not layer.is_for_few(x)
    with torch.no_grad():
        agrees(layer(x), multiplied(layer, x), dtype)


def test_each_call_with_a_single_sample_has_memory_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = made(0, WIDE), torch.randn(1, WIDE[0])
    written: list[list[int]] = []

    def run_on(function: int, arguments: Any, team: int) -> None:
        written.append(list(arguments[3:5]))  # result and scratch
        if len(written) == 1:
            model(x)  # as by another thread, while this call is under way
        _team.run_on(function, arguments, team)

    monkeypatch.setattr("sparse_models.kernels.cpu.chain.few.run_on", run_on)
    with torch.no_grad():
        model(x)
        assert not written
        model(x)
    assert len({*written[0], *written[1]}) == 4
