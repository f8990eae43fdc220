"""Products that skip zero inputs against their plain definition, and the layer that holds its weights by columns for them."""

import copy
import itertools
import platform
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse_models.kernels.cpu import _compile
from sparse_models.kernels.cpu.few.columns import LARGEST_BATCH, Columns, is_possible, pack
from sparse_models.kernels.cpu.few.frozen import product
from sparse_models.kernels.cpu.few.skipping import Skipping, is_better_sparse
from sparse_models.layers.input_skipping import InputSkipping
from sparse_models.masks import random_mask
from sparse_models.training import OPTIMIZERS
from sparse_models.updates import move_mask
from tests.helpers.kernel_checks import Watcher, forget_kernels
from tests.sparse_models.kernels.test_few_samples import DTYPES, agrees
from tests.strategies import generator, normal, seeds

pytestmark = pytest.mark.usefixtures("poisoned")
KINDS = [(dtype, sparse) for dtype in DTYPES for sparse in (False, True) if not sparse or is_possible(dtype)]
each_kind = pytest.mark.parametrize(("dtype", "sparse"), KINDS, ids=str)
zeros = st.sampled_from([0.0, 0.5, 0.9, 1.0])


class Drawn(NamedTuple):
    weight: Tensor
    x: Tensor
    bias: Tensor | None
    sparse: bool

    @property
    def packed(self) -> Columns:
        return pack(self.weight, sparse=self.sparse)


def random(seed: int, shape: tuple[int, ...], zeros: float, dtype: torch.dtype) -> Tensor:
    numbers = normal(seed, *shape, dtype=dtype)
    return numbers * (torch.rand(shape, generator=generator(seed + 1)) >= zeros)


def drawn(seed: int, kind: tuple[torch.dtype, bool], sizes: tuple[int, int, int], kept: float, zeros: float) -> Drawn:
    (dtype, sparse), (batch, columns, rows) = kind, sizes
    weight, x = random(seed, (rows, columns), 1 - kept, dtype), random(seed + 2, (batch, columns), zeros, dtype)
    return Drawn(weight, x, normal(seed + 4, rows, dtype=dtype), sparse)


@st.composite
def problems(draw: st.DrawFn) -> Drawn:
    columns = draw(st.integers(1, 300) | st.just(2100))  # of several panels
    # Few, for each number of samples and of a strip's vectors is compiled: less than a vector, one strip, several.
    batch, rows = draw(st.sampled_from([(1, 5), (1, 300), (3, 40), (LARGEST_BATCH, 131)]))
    sizes = batch, columns, rows
    problem = drawn(draw(seeds), draw(st.sampled_from(KINDS)), sizes, draw(st.sampled_from([0.0, 0.1, 1.0])), draw(zeros))
    return problem if draw(st.booleans()) else problem._replace(bias=None)


def defined(problem: Drawn) -> Tensor:
    """Return what the product means: the columns of inputs that are not all zero, times them, plus bias, in float64."""
    read = (problem.x != 0).any(0)
    product = problem.x.double()[:, read] @ problem.weight.double()[:, read].t()
    return product + (0 if problem.bias is None else problem.bias.double())


@settings(max_examples=30)
@given(problems())
def test_the_product_is_what_its_definition_says_and_reads_the_columns_of_inputs_that_are_not_zero(problem: Drawn) -> None:
    packed = problem.packed
    agrees(product(packed, problem.x, problem.bias, packed.team), defined(problem), problem.x.dtype)
    read = int((problem.x != 0).any(0).sum())
    assert packed.seen[0] == read
    whole = sum(part.nbytes for part in (packed.values, packed.bits, packed.starts) if part is not None)
    assert packed.bytes_read == whole * read // packed.width


@settings(max_examples=10)
@given(problems(), st.sampled_from([torch.inf, -torch.inf, torch.nan]), st.integers(0))
def test_inputs_that_are_no_finite_numbers_are_multiplied(problem: Drawn, number: float, place: int) -> None:
    x = problem.x.clone()
    x.view(-1)[place % x.numel()] = number
    found, expected = product(problem.packed, x, problem.bias, 2), defined(problem._replace(x=x))
    assert torch.equal(found.isnan(), expected.isnan())
    assert torch.equal(found.isinf(), expected.isinf())


@each_kind
def test_a_skipped_zero_adds_nothing_of_an_infinite_weight(dtype: torch.dtype, sparse: bool) -> None:
    problem = drawn(0, (dtype, sparse), (2, 20, 30), 0.5, 0.0)
    problem.x[:, 3], problem.x[:, 7] = 0.0, -0.0
    problem.weight[:, [3, 7]] = torch.inf
    agrees(product(problem.packed, problem.x, problem.bias, 2), defined(problem), dtype)


@each_kind
def test_zeros_alone_give_the_bias(dtype: torch.dtype, sparse: bool) -> None:
    problem = drawn(0, (dtype, sparse), (3, 1500, 70), 0.5, 1.0)
    assert problem.bias is not None
    assert torch.equal(product(problem.packed, problem.x, problem.bias, 2), problem.bias.expand(3, -1))
    assert not product(problem.packed, problem.x, None, 2).any()


@each_kind
def test_the_kernel_touches_what_is_its_own_and_no_two_threads_write_one_place(
    watcher: Watcher, dtype: torch.dtype, sparse: bool
) -> None:
    problem = drawn(1, (dtype, sparse), (3, 1111, 301), 0.2, 0.5)
    agrees(product(problem.packed, problem.x, problem.bias, 2), defined(problem), dtype)
    assert watcher.written
    assert (watcher.outside, watcher.contested) == ([], [])


@each_kind
def test_any_number_of_threads_gives_the_same(dtype: torch.dtype, sparse: bool) -> None:
    problem = drawn(0, (dtype, sparse), (2, 500, 700), 0.2, 0.5)
    first = product(problem.packed, problem.x, problem.bias, 1)
    for threads in (2, 3):
        torch.set_num_threads(threads)
        assert torch.equal(product(problem.packed, problem.x, problem.bias, threads), first)


@pytest.fixture
def _avx2(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    own = _compile.machine()
    if platform.machine() not in ("x86_64", "AMD64") or own.vector_bytes < 32:
        pytest.skip("a processor without AVX2")
    features = ",".join(one for one in own.features.split(",") if "avx512" not in one and "avx10" not in one)
    monkeypatch.setattr(_compile, "machine", lambda: own._replace(name="haswell", features=features, vector_bytes=32))
    forget_kernels()
    yield
    forget_kernels()


@pytest.mark.usefixtures("_avx2")
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_processor_with_avx2_has_all_but_sparse_columns_of_float64(dtype: torch.dtype, sparse: bool) -> None:
    assert is_possible(dtype) == (dtype != torch.float64)
    for batch, kept in itertools.product((1, 8), (0.2, 0.9) if is_possible(dtype) or not sparse else ()):
        problem = drawn(0, (dtype, sparse), (batch, 500, 100), kept, 0.5)
        agrees(product(problem.packed, problem.x, problem.bias, 2), defined(problem), dtype)


@pytest.mark.usefixtures("_avx2")
def test_by_avx2_numbers_that_are_not_finite_reach_no_lane_but_their_own() -> None:
    problem = drawn(0, (torch.float32, True), (2, 60, 100), 0.4, 0.5)
    problem.weight[problem.weight != 0] = torch.inf
    found = product(problem.packed, problem.x, problem.bias, 1)
    torch.testing.assert_close(found.double(), defined(problem), equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_columns_are_sparse_where_that_was_measured_to_be_faster(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = (torch.arange(1000).view(20, 50) < 200).to(dtype)
    assert is_better_sparse(weight) == (is_possible(dtype) and (_compile.vector_bytes(), dtype.itemsize) == (64, 4))
    monkeypatch.setattr("sparse_models.kernels.cpu.few.skipping.LARGE", 1000)
    assert is_better_sparse(weight) == is_possible(dtype)
    assert not is_better_sparse(torch.ones_like(weight))


def layer_and_samples(batch: int, kept: float = 0.3, dtype: torch.dtype = torch.float32) -> tuple[InputSkipping, Tensor]:
    weight, x = normal(0, 20, 300, dtype=dtype), random(1, (batch, 300), 0.5, dtype)
    layer = InputSkipping(weight, random_mask((20, 300), 1 - kept, generator(0)), normal(2, 20, dtype=dtype))
    return layer.eval(), x


def holds(layer: InputSkipping, x: Tensor) -> None:
    """See that the layer gives what it holds, by its kernel for so many samples, twice and both times anew."""
    with torch.no_grad():
        first, second = layer(x), layer(x)
    expected = x.double() @ layer.to_dense().double().t() + (0 if layer.bias is None else layer.bias.detach().double())
    agrees(first, expected, x.dtype)
    assert torch.equal(first, second)
    assert first.data_ptr() != second.data_ptr()
    assert isinstance(layer._skipping, Skipping)
    assert len(x) in layer._skipping.ready


@pytest.mark.parametrize("kept", [0.1, 1.0])
@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_layer_follows_its_weights_its_bias_and_its_mask(batch: int, kept: float, dtype: torch.dtype) -> None:
    layer, x = layer_and_samples(batch, kept, dtype)
    holds(layer, x)
    with torch.no_grad():
        layer.values.mul_(2)
        holds(layer, x)
        layer.values = torch.nn.Parameter(layer.values * 3)
        holds(layer, x)
        assert layer.bias is not None
        layer.bias.add_(1)
        holds(layer, x)
    for number, in_place in enumerate([False, True]):
        move_mask(layer, random_mask((20, 300), 1 - kept, generator(number + 1)), in_place=in_place)
        holds(layer, x)
    layer.load_state_dict(layer_and_samples(batch, kept, dtype)[0].state_dict())
    holds(layer, x)
    holds(layer, torch.cat([x, x], 1)[:, ::2])  # not contiguous
    holds(copy.deepcopy(layer), x)
    holds(layer.float(), x.float())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_step_in_eval_mode_is_seen_though_optimizers_of_one_kernel_count_no_change(optimizer: str) -> None:
    layer, x = layer_and_samples(1)
    holds(layer, x)
    chosen = OPTIMIZERS[optimizer](layer.parameters(), lr=0.1)
    layer(x).sum().backward()
    chosen.step()
    holds(layer, x)


def test_what_the_kernel_does_not_take_is_multiplied_densely() -> None:
    layer, x = layer_and_samples(9)
    with torch.no_grad():
        for other in (x, x[:0], torch.complex(x, x)[:1].conj().imag):
            torch.testing.assert_close(layer(other), layer.to_linear()(other))
    assert layer._skipping is None


def test_threads_that_infer_at_once_do_not_disturb_one_another() -> None:
    layer, x = layer_and_samples(8)

    def infer(number: int) -> Tensor:
        with torch.no_grad():
            result: Tensor = layer(x[number % 8 : number % 8 + 1])
            return result

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(infer, range(100)))
    for number, one in enumerate(found):
        assert torch.equal(one, infer(number))


def test_executed_work_and_bytes_are_those_of_the_columns_that_were_read() -> None:
    layer, x = layer_and_samples(1, kept=1.0)
    dense = layer.multiply_adds
    assert dense.forward == 20 * 300
    with torch.no_grad():
        layer(x * (torch.arange(300) < 30))
    read = int((x[:, :30] != 0).sum())
    assert layer.multiply_adds == (20 * read, *dense[1:])
    assert layer.weight_bytes == 32 * read * 4 + 20 * 4  # rows fill two vectors of AVX-512, or as many of others
