"""Block-sparse products by Triton against their definitions in float64: interpreted, and on a card where there is one."""

import math
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from sparse_models.kernels.structure import BlockStructure
from sparse_models.kernels.triton import _loading, blocks
from sparse_models.kernels.triton._plan import SIZES, Plan
from tests.helpers.gpu.interpreted import device
from tests.helpers.processes.commands import output
from tests.strategies import generator, normal

__all__ = ["device"]
DTYPES = [torch.float32, torch.float16]
# Of edges that do not divide, of rows of blocks that are empty (the first is), of one sample, of several tiles of samples.
SHAPES = [(72, 40, 70), (64, 128, 32), (5, 7, 1)]


class Drawn(NamedTuple):
    weight: Tensor  # [out, in], zeros outside the kept blocks
    kept: Tensor  # [rows of blocks, columns of blocks]
    values: Tensor
    bias: Tensor
    x: Tensor
    grad: Tensor
    rows: BlockStructure
    columns: BlockStructure

    def cut(self, dense: Tensor) -> Tensor:
        """Return a matrix [out, in] as its kept blocks, with zeros beyond its edges."""
        (rows, columns), size = self.kept.shape, self.values.shape[1]
        whole = dense.new_zeros(rows * size, columns * size)
        whole[: dense.shape[0], : dense.shape[1]] = dense
        return whole.view(rows, size, columns, size).transpose(1, 2)[self.kept]


def draw(shape: tuple[int, int, int], size: int, dtype: torch.dtype, device: str, density: float = 0.6) -> Drawn:
    outputs, inputs, batch = shape
    rows, columns = -(-outputs // size), -(-inputs // size)
    kept = torch.rand(rows, columns, generator=generator(size + batch)) < density
    kept[0] &= rows == 1
    mask = kept.repeat_interleave(size, 0).repeat_interleave(size, 1)[:outputs, :inputs]
    numbers = [normal(seed, *sizes, dtype=dtype) for seed, sizes in enumerate([mask.shape, (outputs,), (batch, inputs)])]
    grad = normal(3, batch, outputs, dtype=dtype)
    weight, bias, x, grad = (guarded(tensor.to(device)) for tensor in (numbers[0] * mask, *numbers[1:], grad))
    structures = lists(kept, outputs, inputs, size, device)
    made = Drawn(weight, kept.to(device), weight.new_zeros(0, size, size), bias, x, grad, *structures)
    return made._replace(values=guarded(made.cut(weight)))


def lists(kept: Tensor, outputs: int, inputs: int, size: int, device: str) -> tuple[BlockStructure, BlockStructure]:
    rows, columns = kept.nonzero(as_tuple=True)
    order = (columns * len(kept) + rows).argsort()

    def structure(rows: Tensor, columns: Tensor, order: Tensor | None, sizes: tuple[int, int]) -> BlockStructure:
        counts = torch.bincount(rows, minlength=-(-sizes[0] // size)).cumsum(0)
        pointers, indices = torch.cat([counts.new_zeros(1), counts]).int(), columns.short()
        order = None if order is None else guarded(order.int().to(device))
        return BlockStructure(guarded(pointers.to(device)), guarded(indices.to(device)), order, *sizes, (size, size))

    return structure(rows, columns, None, (outputs, inputs)), structure(columns[order], rows[order], order, (inputs, outputs))


def guarded(tensor: Tensor) -> Tensor:
    """Return a copy with numbers around it that spoil whatever reads them."""
    spoiling = math.nan if tensor.is_floating_point() else 2**14
    around = torch.full((tensor.numel() + 128,), spoiling, dtype=tensor.dtype, device=tensor.device)
    around[64:-64] = tensor.flatten()
    return around[64:-64].view(tensor.shape)


def close(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert found.is_contiguous()
    error = (found.double() - expected).norm() / expected.norm().clamp(min=1e-300)
    # Three products of TensorFloat-32 have 22 of float32's 24 bits, and tensor cores cut the last bits of sums.
    most = 8 if found.is_cuda and found.dtype == torch.float32 else 2
    assert expected.numel() == 0 or error < most * torch.finfo(found.dtype).eps


def forward(drawn: Drawn, plan: Plan | None = None) -> Tensor:
    return blocks.product(drawn.rows, drawn.values, drawn.x, drawn.bias, plan)


def backward(drawn: Drawn, plan: Plan | None = None) -> Tensor:
    return blocks.product(drawn.columns, drawn.values, drawn.grad, plan=plan)


def defined(drawn: Drawn) -> tuple[Tensor, Tensor, Tensor]:
    weight, x, grad = drawn.weight.double(), drawn.x.double(), drawn.grad.double()
    return x @ weight.t() + drawn.bias.double(), grad @ weight, drawn.cut(grad.t() @ x)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_products_are_those_of_their_definitions(
    device: str, size: int, shape: tuple[int, int, int], dtype: torch.dtype
) -> None:
    drawn = draw(shape, size, dtype, device)
    output, input_gradient, weight_gradient = defined(drawn)
    close(forward(drawn), output)
    close(backward(drawn), input_gradient)
    close(blocks.sampled(drawn.rows, drawn.grad, drawn.x), weight_gradient)


@pytest.fixture
def _tensorfloat32() -> Iterator[None]:
    products: Any = torch.backends.cuda.matmul
    before, products.fp32_precision = products.fp32_precision, "tf32"
    yield
    products.fp32_precision = before


@pytest.mark.usefixtures("_tensorfloat32")
@pytest.mark.parametrize("size", [16, 64])
def test_in_tensorfloat32_what_tensor_cores_do_not_take_is_transposed_before(device: str, size: int) -> None:
    drawn = draw(SHAPES[0], size, torch.float32, device)
    drawn.x.copy_(drawn.x.half())  # whose bits TensorFloat-32 has all of
    drawn.grad.copy_(drawn.grad.half())
    drawn.values.copy_(drawn.values.half())
    drawn = drawn._replace(weight=drawn.weight.half())
    output, input_gradient, weight_gradient = defined(drawn)
    close(forward(drawn), output)
    close(backward(drawn), input_gradient)
    close(blocks.sampled(drawn.rows, drawn.grad, drawn.x), weight_gradient)


@pytest.mark.parametrize("shape", [(136, 200, 70), (128, 64, 64)], ids=str)
def test_tiles_that_the_memory_accelerator_copies_are_the_same(device: str, shape: tuple[int, int, int]) -> None:
    if device == "cuda" and torch.cuda.get_device_capability()[0] < 9:
        pytest.skip("this card has no memory accelerator")
    drawn = draw(shape, 64, torch.float16, device)
    plan = Plan(64, 64, 4, 3, by_tma=True)
    output, input_gradient, _ = defined(drawn)
    close(forward(drawn, plan), output)
    close(backward(drawn, plan), input_gradient)


@pytest.mark.parametrize("depth", [16, 32])
def test_a_step_may_be_a_part_of_a_block(device: str, depth: int) -> None:
    drawn = draw(SHAPES[0], 32, torch.float32, device)
    plan = Plan(16, depth, 4, 3)
    output, input_gradient, _ = defined(drawn)
    close(forward(drawn, plan), output)
    close(backward(drawn, plan), input_gradient)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_weight_gradient_in_parts_of_the_batch_is_their_sum(
    device: str, count: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "parts_of", lambda *_: 3)
    drawn = draw((40, 72, 131), 16, dtype, device)
    close(blocks.sampled(drawn.rows, drawn.grad, drawn.x, Plan(count, 16, 4, 3)), defined(drawn)[2])


@pytest.mark.parametrize("size", [16, 64])
def test_without_a_kept_block_outputs_are_the_bias(device: str, size: int) -> None:
    drawn = draw(SHAPES[0], size, torch.float32, device, density=0)
    assert torch.equal(forward(drawn), drawn.bias.expand(70, -1))
    assert not backward(drawn).any()
    assert blocks.sampled(drawn.rows, drawn.grad, drawn.x).shape == (0, size, size)


def test_without_samples_outputs_are_empty_and_weight_gradients_zero(device: str) -> None:
    drawn = draw(SHAPES[0], 16, torch.float32, device)
    drawn = drawn._replace(x=drawn.x[:0], grad=drawn.grad[:0])
    assert forward(drawn).shape == (0, 72)
    found = blocks.sampled(drawn.rows, drawn.grad, drawn.x)
    assert found.shape == drawn.values.shape
    assert not found.any()


@pytest.mark.parametrize("strides", ["batch-major", "feature-major"])
def test_autograd_has_the_same_products(device: str, strides: str) -> None:
    drawn = draw(SHAPES[0], 16, torch.float32, device)
    x = drawn.x.t().contiguous().t() if strides == "feature-major" else drawn.x
    x, values, bias = (tensor.detach().clone().requires_grad_() for tensor in (x, drawn.values, drawn.bias))
    output, input_gradient, weight_gradient = defined(drawn)
    found = blocks.linear(x, values, bias, drawn.rows, drawn.columns)
    close(found.detach(), output)
    found.backward(drawn.grad.t().contiguous().t() if strides == "feature-major" else drawn.grad)
    for leaf, expected in ((x, input_gradient), (values, weight_gradient), (bias, drawn.grad.double().sum(0))):
        assert leaf.grad is not None
        close(leaf.grad.contiguous(), expected)
    with torch.no_grad():
        close(blocks.linear(x, values, bias, drawn.rows, drawn.columns), output)


def test_gradients_that_nobody_asks_for_are_not_computed(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = draw(SHAPES[0], 16, torch.float32, device)
    values = drawn.values.clone().requires_grad_()
    found = blocks.linear(drawn.x, values, None, drawn.rows, drawn.columns)
    monkeypatch.setattr(blocks, "product", None)  # no input gradient is
    found.backward(drawn.grad)
    assert values.grad is not None


def test_a_transpose_has_the_rows_of_what_it_is_of(device: str) -> None:
    for rows, columns in ((1, 200), (65, 70), (0, 3)):
        x = guarded(normal(0, rows, columns, dtype=torch.float32).to(device))
        assert torch.equal(blocks.transposed(x), x.t())


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for unit in ((4, 4), (8, 8), (16, 32)):
        assert "so blocks there are of 16 x 16, 32 x 32, 64 x 64, 128 x 128, not" in str(blocks.why_absent(unit))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    _loading.why_absent.cache_clear()
    assert "pip install triton" in str(blocks.why_absent((16, 16)))
    _loading.why_absent.cache_clear()


def test_importing_the_package_imports_no_triton() -> None:
    program = "import sys, sparse_models.registry as registry; registry.LAYERS; assert 'triton' not in sys.modules"
    output([sys.executable, "-c", program])
