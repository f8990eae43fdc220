"""What kernels are written in, for every width of vectors that this processor can do."""

import platform
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse_models.kernels.chain import define_gradients
from sparse_models.kernels.cpu import _compile
from sparse_models.kernels.cpu._arithmetic import BYTES
from sparse_models.kernels.cpu._compile import Machine, machine, vector_bytes
from sparse_models.kernels.cpu._pass import tile_by_tile
from sparse_models.kernels.cpu._team import run
from sparse_models.kernels.cpu._tile import emitter_for
from sparse_models.kernels.cpu.permute import LEAST, permuted
from sparse_models.kernels.cpu.tiled import define_product, define_sampled, product, sampled
from sparse_models.kernels.cpu.transpose import transposed
from tests.helpers.kernel_checks import Watcher, close, forget_kernels
from tests.sparse_models.kernels import test_blocks as blocks
from tests.sparse_models.kernels.test_chain import links
from tests.sparse_models.kernels.test_kernels import problem

pytestmark = pytest.mark.usefixtures("poisoned")
X86 = platform.machine() in ("x86_64", "AMD64")
NARROWER = [Machine("x86-64", "", 16), Machine("x86-64-v3", "+avx2,+fma", 32)] if X86 else []


@pytest.fixture(params=[machine(), *NARROWER], ids=lambda one: f"{one.name}-{one.vector_bytes}")
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """A machine that kernels are compiled for: this one, and those with narrower vectors whose code it runs."""
    if request.param.vector_bytes > machine().vector_bytes:
        pytest.skip(f"this processor has no vectors of {request.param.vector_bytes} bytes")
    monkeypatch.setattr(_compile, "machine", lambda: request.param)
    forget_kernels()
    yield request.param
    forget_kernels()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("batch", [1, 3, 70, 300])
def test_kernels_are_what_their_definitions_say_at_every_width(width: Machine, batch: int, dtype: torch.dtype) -> None:
    for seed in range(2):
        structure, values, x, bias, grad = problem(seed, 23, 41, batch, 0.3, dtype)
        defined = define_product(structure, values, x, bias, relu=True, passed=grad)
        close(product(structure, values, x, bias, relu=True, passed=grad), defined)
        close(sampled(structure, grad, x), define_sampled(structure, grad, x))
    linked = links(0, (20, 33, 5), 0.3, dtype, with_bias=True)
    x, labels = torch.randn(batch, 20, dtype=dtype), torch.arange(batch) % 5
    found, defined_gradients = tile_by_tile(linked, x, labels), define_gradients(linked, x, labels)
    close(found.loss, defined_gradients.loss)
    for mine, its in zip(found.values + found.biases, defined_gradients.values + defined_gradients.biases, strict=True):
        close(mine, its)


@pytest.mark.parametrize(("unit", "dtype"), [((4, 4), torch.float32), ((4, 6), torch.float64)], ids=str)
@pytest.mark.parametrize("batch", [1, 70])
def test_kernels_of_blocks_are_what_their_definitions_say_at_every_width(
    width: Machine, batch: int, unit: tuple[int, int], dtype: torch.dtype
) -> None:
    blocks.check(blocks.problem(0, unit, (23, 41), batch, 0.5, dtype))
    blocks.check_chain(blocks.links(unit, (20, 33, 5), dtype), torch.randn(batch, 20, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_reordering_is_exact_at_every_width(width: Machine, dtype: torch.dtype) -> None:
    x = torch.randn(71, 135, dtype=dtype)
    assert torch.equal(transposed(x), x.t())
    values, order = torch.randn(LEAST + 3, dtype=dtype), torch.randperm(LEAST + 3).int()
    assert torch.equal(permuted(values, order), values[order.long()])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_reordering_touches_what_is_its_own(watcher: Watcher, dtype: torch.dtype) -> None:
    x = torch.randn(71, 67, dtype=dtype)
    assert torch.equal(transposed(x), x.t())
    assert watcher.written
    values, order = torch.randn(LEAST + 3, dtype=dtype), torch.randperm(LEAST + 3).int()
    assert torch.equal(permuted(values, order), values[order.long()])
    assert watcher.written
    assert not watcher.outside
    assert not watcher.contested


def exp(x: Tensor) -> Tensor:
    """The kernels' own exponential, of as many numbers as fill whole vectors."""
    emit = emitter_for(str(x.dtype).removeprefix("torch."), vector_bytes())
    source, target, count = (emit.argument(place) for place in range(3))
    with emit.loop(emit.constant(0), count, emit.lanes) as place:
        offset = emit.times(place.place, emit.width)
        emit.store(emit.exp(emit.load(emit.vector, emit.add(source, offset))), emit.add(target, offset))
    result = torch.empty_like(x)
    run(emit.compiled(), [x, result, len(x)], 1)
    return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_exponential_is_right_to_a_few_units_of_the_last_place(width: Machine, dtype: torch.dtype) -> None:
    numbers = torch.finfo(dtype)
    lowest = torch.tensor(numbers.smallest_normal, dtype=torch.float64).log()
    x = torch.linspace(float(lowest) * 0.999, 0.0, 2**14, dtype=torch.float64).to(dtype)
    expected = x.double().exp()
    assert float(((exp(x).double() - expected) / expected).abs().max()) < 3 * numbers.eps
    special = torch.tensor([0.0, -0.0, float("nan"), -1e30, -float("inf")] * 16, dtype=dtype)
    found = exp(special).view(16, 5)[0]
    assert found[:2].tolist() == [1.0, 1.0]
    assert found[2].isnan()
    assert (found[3:] <= 2 * numbers.smallest_normal).all()


@settings(max_examples=10)
@given(st.integers(1, 140), st.integers(1, 140), st.booleans(), st.sampled_from([torch.float32, torch.float64]))
def test_a_transposition_of_any_size_and_strides_is_exact(batch: int, features: int, strided: bool, dtype: torch.dtype) -> None:
    x = torch.randn(batch, 2 * features, dtype=dtype)[:, ::2] if strided else torch.randn(batch, features, dtype=dtype)
    assert torch.equal(transposed(x), x.t())
    assert transposed(x).is_contiguous()


def test_every_dtype_has_its_bytes() -> None:
    assert {name: getattr(torch, name).itemsize for name in BYTES} == BYTES
