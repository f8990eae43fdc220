"""Products that skip zero inputs by Triton against their definition, and the layer: interpreted, and on a card where one is."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from sparse_models.kernels.triton import columns
from sparse_models.kernels.triton.columns import LARGEST_BATCH, Columns, pack, product
from sparse_models.layers import input_skipping
from sparse_models.layers.input_skipping import InputSkipping
from sparse_models.masks import random_mask
from sparse_models.testing import Problem, gate
from sparse_models.updates import move_mask
from tests.helpers.gpu.interpreted import device
from tests.sparse_models.kernels.gpu.test_triton_blocks import guarded
from tests.strategies import generator, normal

__all__ = ["device"]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]  # the interpreter's sums of bfloat16 are right, unlike its dot
# Batch, inputs, outputs: one step, less than a program's rows, several programs, several steps and samples that are not there.
SIZES = [(1, 20, 5), (1, 70, 131), (3, 40, 130), (LARGEST_BATCH, 33, 32)]
each_kind = pytest.mark.parametrize("dtype", DTYPES, ids=str)
dense_and_sparse = pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])


class Drawn(NamedTuple):
    weight: Tensor
    x: Tensor
    bias: Tensor

    def packed(self, *, sparse: bool) -> Columns:
        parts = [guarded(one) if isinstance(one, Tensor) else one for one in pack(self.weight, sparse=sparse)]
        return Columns(*parts)  # type: ignore[arg-type]


def draw(sizes: tuple[int, int, int], dtype: torch.dtype, device: str, zeros: float = 0.5, kept: float = 0.4) -> Drawn:
    batch, inputs, outputs = sizes
    weight, x, bias = (
        normal(seed, *shape, dtype=dtype) for seed, shape in enumerate([(outputs, inputs), (batch, inputs), (outputs,)])
    )
    weight *= random_mask((outputs, inputs), 1 - kept, generator(3))
    x *= random_mask((batch, inputs), zeros, generator(4))
    return Drawn(*(guarded(one.to(device)) for one in (weight, x, bias)))


def defined(drawn: Drawn) -> Tensor:
    """Return what the product means: the columns of inputs that are not all zero, times them, plus bias, in float64."""
    read = (drawn.x != 0).any(0)
    return drawn.x.double()[:, read] @ drawn.weight.double()[:, read].t() + drawn.bias.double()


def agrees(found: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    assert found.dtype == dtype
    assert found.is_contiguous()
    assert (found.double() - expected).norm() <= 4 * torch.finfo(dtype).eps * expected.norm()


# The interpreter takes a second for each: in 16 bit one size.
@pytest.mark.parametrize(
    ("sizes", "dtype"), [*((size, DTYPES[0]) for size in SIZES), (SIZES[0], DTYPES[1]), (SIZES[2], DTYPES[2])], ids=str
)
@dense_and_sparse
def test_the_product_is_what_its_definition_says(
    device: str, dtype: torch.dtype, sparse: bool, sizes: tuple[int, int, int]
) -> None:
    drawn = draw(sizes, dtype, device)
    for parts in (1, 3):
        agrees(product(drawn.packed(sparse=sparse), drawn.x, drawn.bias, parts), defined(drawn), dtype)


def test_without_a_bias_nothing_is_added(device: str) -> None:
    drawn = draw(SIZES[2], torch.float32, device)
    found, expected = product(drawn.packed(sparse=False), drawn.x), defined(drawn._replace(bias=torch.zeros_like(drawn.bias)))
    agrees(found, expected, torch.float32)


@dense_and_sparse
def test_columns_of_zero_inputs_are_not_read(device: str, sparse: bool) -> None:
    drawn = draw(SIZES[2], torch.float32, device, zeros=0.8)
    skipped = (drawn.x == 0).all(0)
    assert 0 < skipped.sum() < len(skipped)
    drawn.x[:, skipped] *= -1  # -0 is a zero as well
    drawn.weight[:, skipped] = torch.inf  # of which a product by 0 would be NaN
    agrees(product(drawn.packed(sparse=sparse), drawn.x, drawn.bias), defined(drawn), torch.float32)


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # infinity times a zero weight, by NumPy
@pytest.mark.parametrize("number", [torch.inf, -torch.inf, torch.nan])
@dense_and_sparse
def test_inputs_that_are_no_finite_numbers_are_multiplied(device: str, sparse: bool, number: float) -> None:
    drawn = draw(SIZES[2], torch.float16, device)
    drawn.x[1, 7] = number
    found, expected = product(drawn.packed(sparse=sparse), drawn.x, drawn.bias), defined(drawn)
    assert torch.equal(found.isnan(), expected.isnan())
    assert torch.equal(found.isinf(), expected.isinf())


@dense_and_sparse
def test_zeros_alone_give_the_bias(device: str, sparse: bool) -> None:
    drawn = draw(SIZES[2], torch.float32, device, zeros=1)
    assert torch.equal(product(drawn.packed(sparse=sparse), drawn.x, drawn.bias), drawn.bias.expand(3, -1))


def test_weights_of_which_none_is_there_give_the_bias(device: str) -> None:
    drawn = draw(SIZES[2], torch.float32, device, kept=0)
    packed = pack(drawn.weight, sparse=True)
    assert torch.equal(product(packed, drawn.x, drawn.bias), drawn.bias.expand(3, -1))


@pytest.fixture
def _kernels_of_a_gpu(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if device == "cpu":
        monkeypatch.setattr(input_skipping, "kind_of", lambda _: "cuda")


def layer_and_samples(device: str, batch: int, kept: float, dtype: torch.dtype) -> tuple[InputSkipping, Tensor]:
    drawn = draw((batch, 24, 40), dtype, device)
    mask = random_mask((40, 24), 1 - kept, generator(0)).to(device)
    return InputSkipping(drawn.weight, mask, drawn.bias).eval(), drawn.x


def holds(layer: InputSkipping, x: Tensor) -> None:
    """See that the layer gives what it holds by the kernel for few samples."""
    before = layer.to_dense().double(), x.double()
    with torch.no_grad():
        found = layer(x)
    assert layer.bias is not None
    agrees(found, before[1] @ before[0].t() + layer.bias.detach().double(), x.dtype)
    assert isinstance(layer._skipping, columns.Skipping)
    assert layer._skipping.last is not None
    assert layer._skipping.last[0].data_ptr() == x.data_ptr()


@pytest.mark.usefixtures("_kernels_of_a_gpu")
@pytest.mark.parametrize(("batch", "kept"), [(1, 1.0), (LARGEST_BATCH, 0.1)])
def test_a_layer_follows_its_weights_its_bias_and_its_mask(device: str, batch: int, kept: float) -> None:
    layer, x = layer_and_samples(device, batch, kept, torch.float32)
    holds(layer, x)
    assert isinstance(layer._skipping, columns.Skipping)
    assert layer._skipping.held is not None
    assert (layer._skipping.held[0].bits is not None) == (kept <= columns.DENSEST)
    with torch.no_grad():
        layer.values.mul_(2)
        holds(layer, x)
        assert layer.bias is not None
        layer.bias.add_(1)
        holds(layer, x)
    move_mask(layer, random_mask((40, 24), 1 - kept, generator(1)).to(device))
    holds(layer, x)
    layer.train()(x).sum().backward()
    with torch.no_grad():
        assert layer.values.grad is not None
        layer.values.data.sub_(layer.values.grad)  # unseen, but for the training
    holds(layer.eval(), x)
    holds(layer, torch.cat([x, x], 1)[:, ::2])  # not contiguous


@pytest.mark.usefixtures("_kernels_of_a_gpu")
def test_the_layer_passes_the_gate_and_multiplies_many_samples_densely(device: str) -> None:
    drawn, grad = draw((9, 24, 40), torch.float32, device), normal(5, 9, 40).to(device)
    gate(InputSkipping, Problem(drawn.weight, random_mask((40, 24), 0.5, generator(0)).to(device), drawn.bias, drawn.x, grad))
    layer, x = layer_and_samples(device, 9, 0.1, torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), layer.to_linear()(x))
    assert layer._skipping is None


@pytest.mark.usefixtures("_kernels_of_a_gpu")
def test_work_and_bytes_are_those_of_the_columns_that_were_read(device: str) -> None:
    layer, x = layer_and_samples(device, 1, 1.0, torch.float32)
    assert layer.multiply_adds.forward == 40 * 24
    with torch.no_grad():
        layer(x)
    read = int((x != 0).sum())
    assert layer.multiply_adds == (40 * read, 40 * 24, 40 * 24)
    assert layer.weight_bytes == 40 * read * 4 + 40 * 4


@pytest.mark.usefixtures("_kernels_of_a_gpu")
def test_no_copy_is_made_while_a_graph_is_captured_and_one_that_it_reads_is_kept(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, x = layer_and_samples(device, 1, 1.0, torch.float32)
    with monkeypatch.context() as captured, torch.no_grad():
        for module in (columns, input_skipping):
            captured.setattr(module, "is_captured", lambda _: True)
        torch.testing.assert_close(layer(x), layer.to_linear()(x))
        assert isinstance(layer._skipping, columns.Skipping)
        assert layer._skipping.held is None
    holds(layer, x)
    [read, _] = layer._skipping.held or [None, None]
    with monkeypatch.context() as captured, torch.no_grad():
        captured.setattr(columns, "is_captured", lambda _: True)
        layer(x)
        layer(x)  # captured again, of the same weights
    assert layer._skipping.captured == [read]
    layer.train()
    assert layer._skipping.last is None  # no input is held longer than the copy
    assert layer._skipping.captured == [read]


@pytest.mark.usefixtures("_kernels_of_a_gpu")
@pytest.mark.parametrize("is_inference", [False, True])
def test_of_an_input_that_was_written_over_no_share_is_told(device: str, *, is_inference: bool) -> None:
    layer, x = layer_and_samples(device, 1, 1.0, torch.float32)
    with torch.inference_mode(is_inference), torch.no_grad():
        x = x.clone()
        layer(x)
    read = int((x != 0).sum())
    assert layer.multiply_adds.forward == 40 * read
    if not is_inference:  # whose changes are not counted
        x.zero_()
        assert layer.multiply_adds.forward == 40 * 24
        assert layer.weight_bytes == 40 * 24 * 4 + 40 * 4


@pytest.mark.usefixtures("_kernels_of_a_gpu")
def test_a_number_type_that_no_kernel_of_a_gpu_has_is_multiplied_densely(device: str) -> None:
    layer, x = layer_and_samples(device, 1, 0.5, torch.float32)
    layer, x = layer.double(), x.double()
    with torch.no_grad():
        torch.testing.assert_close(layer(x), layer.to_linear()(x), rtol=1e-14, atol=1e-14)
    assert layer._skipping is None


def test_without_kernels_for_a_gpu_all_is_multiplied_densely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_skipping, "kind_of", lambda _: "cuda")
    monkeypatch.setattr(InputSkipping, "devices", ("cpu",))  # as where there is no Triton
    layer, x = layer_and_samples("cpu", 1, 0.5, torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), layer.to_linear()(x))
    assert layer._skipping is None
