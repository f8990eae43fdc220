"""The sparse products for a GPU against their definitions in float64: on a card, and the same source in the emulator."""

import itertools
from typing import NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse_models.kernels import chain
from sparse_models.kernels.cpu.tiled import define_product, define_sampled
from sparse_models.kernels.cuda import _tiling
from sparse_models.kernels.cuda._tiling import Tiling
from sparse_models.kernels.cuda.product import product
from sparse_models.kernels.cuda.sampled import sampled, sampled_and_summed
from sparse_models.kernels.link import Link
from sparse_models.kernels.structure import AnyStructure, Structure
from sparse_models.layers._feature_major.csr_storage import compress
from tests.helpers.gpu.on_a_card import device
from tests.strategies import seeds

__all__ = ["device"]  # a fixture
pytestmark = pytest.mark.usefixtures("poisoned")

TOLERANCE = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
# A tile of 32 to 256 numbers; a warp with one row and with several, a block with one warp and with several; slabs of x. Each is
# a kernel to be compiled, so not all are tried with all types of numbers and of indices.
KERNELS = [
    (Tiling(8, 1, rows=2, threads=64), torch.float32, torch.int16),
    (Tiling(16, 1, rows=1, threads=32, cuts=3), torch.bfloat16, torch.int32),
    (Tiling(32, 1, rows=4, threads=64, cuts=2, buffers=1), torch.float16, torch.int16),
    (Tiling(8, 2, rows=3, threads=96, cuts=40, unroll=4), torch.float32, torch.int32),
    (Tiling(8, 4, rows=5, threads=64, cuts=3, buffers=1), torch.float32, torch.int16),
]
TILINGS = [KERNELS[0][0], KERNELS[3][0], KERNELS[4][0]]


class Numbers(NamedTuple):
    structure: Structure
    values: Tensor
    x: Tensor
    bias: Tensor
    grad: Tensor


def problem(
    seed: int,
    rows: int,
    columns: int,
    batch: int,
    density: float,
    dtype: torch.dtype,
    device: str,
    index: torch.dtype = torch.int16,
) -> Numbers:
    """Where there are three rows, one is full and one is empty."""
    numbers = torch.Generator().manual_seed(seed)
    mask = torch.rand(rows, columns, generator=numbers) < density
    if rows > 2 and density:
        mask[0], mask[1] = True, False
    pointers, _, indices = compress(mask)
    sizes = [(int(mask.sum()),), (columns, batch), (rows,), (rows, batch)]
    drawn = [torch.randn(size, generator=numbers).to(dtype).to(device) for size in sizes]
    return Numbers(Structure(pointers.to(device), indices.to(device, index), columns), *drawn)


def close(actual: Tensor, expected: Tensor, scale: Tensor) -> None:
    """Errors are measured against the sum of the magnitudes, `scale`, which is what rounding grows with."""
    assert actual.shape == expected.shape
    assert not actual.isnan().any()
    error = (actual.double().cpu() - expected).abs() / (scale + 1e-3)
    assert not error.numel() or float(error.max()) < TOLERANCE[actual.dtype], float(error.max())


def in_float64(numbers: Numbers) -> Numbers:
    structure = Structure(numbers.structure.pointers.cpu(), numbers.structure.indices.cpu(), numbers.structure.columns)
    return Numbers(structure, *(part.double().cpu() for part in numbers[1:]))


def check_product(
    numbers: Numbers, tiling: Tiling | None, parts: int | None = None, *, biased: bool, relu: bool, stopped: bool
) -> None:
    exact = in_float64(numbers)
    bias, passed = (exact.bias if biased else None), (exact.grad if stopped else None)
    defined = define_product(exact.structure, exact.values, exact.x, bias, relu=relu, passed=passed)
    scale = define_product(exact.structure, exact.values.abs(), exact.x.abs(), None if bias is None else bias.abs())
    own_bias, own_passed = (numbers.bias if biased else None), (numbers.grad if stopped else None)
    found = product(
        numbers.structure, numbers.values, numbers.x, own_bias, relu=relu, passed=own_passed, tiling=tiling, parts=parts
    )
    assert found.dtype == numbers.x.dtype
    assert found.is_contiguous()
    close(found, defined, scale)


def check_sampled(numbers: Numbers, tiling: Tiling | None, parts: int | None = None) -> None:
    exact = in_float64(numbers)
    found, sums = sampled_and_summed(numbers.structure, numbers.grad, numbers.x, tiling=tiling, parts=parts)
    assert found.dtype == sums.dtype == numbers.x.dtype
    scale = define_sampled(exact.structure, exact.grad.abs(), exact.x.abs())
    close(found, define_sampled(exact.structure, exact.grad, exact.x), scale)
    close(sums, exact.grad.sum(1), exact.grad.abs().sum(1))
    assert torch.equal(sampled(numbers.structure, numbers.grad, numbers.x, tiling=tiling, parts=parts), found)


@pytest.mark.parametrize(("tiling", "dtype", "index"), KERNELS)
def test_products_are_what_their_definitions_say(device: str, tiling: Tiling, dtype: torch.dtype, index: torch.dtype) -> None:
    shapes = [(13, 75, 128, 0.5), (5, 100, 104, 0.1), (9, 40, 63, 0.4), (4, 33, 1, 0.9)]
    for seed, (rows, columns, batch, density) in enumerate(shapes):
        numbers = problem(seed, rows, columns, batch, density, dtype, device, index)
        for parts in (1, None):
            check_product(numbers, tiling, parts, biased=seed % 2 == 0, relu=seed % 2 == 1, stopped=seed < 2)
        check_sampled(numbers, tiling)
        check_sampled(numbers, tiling, parts=1)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seeds,
    st.tuples(st.integers(1, 40), st.integers(1, 70), st.integers(1, 200)),
    st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    st.sampled_from(KERNELS),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
    st.sampled_from([None, 1, 2]),
)
def test_products_of_any_shape(
    device: str,
    seed: int,
    sizes: tuple[int, int, int],
    density: float,
    kernel: tuple[Tiling, torch.dtype, torch.dtype],
    options: tuple[bool, bool, bool],
    parts: int | None,
) -> None:
    tiling, dtype, index = kernel
    numbers = problem(seed, *sizes, density, dtype, device, index)
    check_product(numbers, tiling, parts, biased=options[0], relu=options[1], stopped=options[2])
    check_sampled(numbers, tiling, parts)


@pytest.mark.parametrize(("rows", "columns", "batch"), [(16, 24, 64), (6, 300, 9), (70, 10, 33)])
def test_products_cut_by_default(device: str, rows: int, columns: int, batch: int) -> None:
    numbers = problem(1, rows, columns, batch, 0.2, torch.float32, device)
    check_product(numbers, None, biased=True, relu=True, stopped=False)
    check_sampled(numbers, None)


def test_what_a_row_has_no_weight_for_is_no_part_of_it(device: str) -> None:
    numbers = problem(0, 6, 40, 68, 0.2, torch.float32, device)
    untouched = torch.ones(40, dtype=torch.bool)
    untouched[numbers.structure.indices[int(numbers.structure.pointers[1]) :].long().cpu()] = False
    numbers.x[untouched.to(device)] = torch.inf
    for tiling in TILINGS:
        assert product(numbers.structure, numbers.values, numbers.x, tiling=tiling)[1:].isfinite().all()


def test_nothing_in_a_batch_or_a_matrix(device: str) -> None:
    numbers = problem(0, 3, 4, 0, 0.5, torch.float32, device)
    assert product(numbers.structure, numbers.values, numbers.x, numbers.bias).shape == (3, 0)
    assert torch.equal(sampled(numbers.structure, numbers.grad, numbers.x), numbers.x.new_zeros(len(numbers.values)))
    empty = problem(0, 3, 4, 20, 0.0, torch.float32, device)
    assert torch.equal(product(empty.structure, empty.values, empty.x, empty.bias), empty.bias[:, None].repeat(1, 20))
    assert sampled(empty.structure, empty.grad, empty.x).shape == (0,)
    no_rows = Structure(empty.structure.pointers[:1], empty.structure.indices, 4)
    assert product(no_rows, empty.values, empty.x).shape == (0, 20)
    no_columns = Structure(empty.structure.pointers, empty.structure.indices, 0)
    assert torch.equal(product(no_columns, empty.values, empty.x[:0]), torch.zeros(3, 20, device=device))


def test_rows_that_begin_anywhere_in_memory(device: str) -> None:
    """As many numbers in a row as fit into whole pieces, which yet begin between two."""
    numbers = problem(0, 5, 30, 64, 0.3, torch.float32, device)
    moved = [torch.cat([part.new_zeros(1), part.flatten()])[1:].view(part.shape) for part in (numbers.x, numbers.grad)]
    assert not _tiling.aligned(64, moved[0])
    shifted = numbers._replace(x=moved[0], grad=moved[1])
    check_product(shifted, TILINGS[0], biased=False, relu=False, stopped=True)
    check_sampled(shifted, TILINGS[0])


def test_the_same_numbers_give_the_same_bits(device: str) -> None:
    numbers = problem(0, 8, 90, 300, 0.3, torch.float32, device)
    for tiling in TILINGS:
        first, second = (product(numbers.structure, numbers.values, numbers.x, tiling=tiling, parts=3) for _ in range(2))
        assert torch.equal(first, second)
        first, second = (sampled(numbers.structure, numbers.grad, numbers.x, tiling=tiling, parts=3) for _ in range(2))
        assert torch.equal(first, second)


def test_a_chain_is_trained_layer_by_layer(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "kernels_for", lambda *_: chain.CUDA)
    sizes, links = [12, 20, 9, 5], []
    for seed, (columns, rows) in enumerate(itertools.pairwise(sizes)):
        mask = torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)) < 0.4
        pointers, _, indices = compress(mask)
        turned_pointers, _, turned_indices = compress(mask.t().contiguous())
        numbers = torch.zeros(mask.shape, dtype=torch.int32)
        numbers[mask] = torch.arange(int(mask.sum()), dtype=torch.int32)
        order = numbers.t()[mask.t()]
        values, bias = torch.randn(int(mask.sum())), torch.randn(rows)
        structures = Structure(pointers, indices, columns), Structure(turned_pointers, turned_indices, rows)
        links.append(Link(*structures, values, order, bias))
    x, labels = torch.randn(70, 12), torch.randint(0, 5, (70,))
    expected = chain.define_gradients(links, x, labels)

    def there(structure: AnyStructure) -> Structure:
        assert isinstance(structure, Structure)
        return Structure(structure.pointers.to(device), structure.indices.to(device), structure.columns)

    moved = [
        Link(there(one.rows), there(one.columns), one.values.to(device), one.transposition.to(device), one.bias.to(device))
        for one in links
        if one.bias is not None
    ]
    found = chain.layer_by_layer(moved, x.to(device), labels.to(device))
    for own, defined in zip(
        [found.loss, *found.values, *found.biases], [expected.loss, *expected.values, *expected.biases], strict=True
    ):
        torch.testing.assert_close(own.cpu(), defined, rtol=1e-4, atol=1e-5)


def test_values_are_gathered_for_a_transpose(device: str) -> None:
    for seed, (nnz_of, dtype) in enumerate([((40, 70), torch.float32), ((1, 3), torch.bfloat16)]):
        numbers = problem(seed, *nnz_of, 68, 0.9, dtype, device)
        nnz = len(numbers.values)
        order = torch.randperm(nnz, generator=torch.Generator().manual_seed(seed)).to(device)
        placed = numbers.values.new_empty(nnz)
        placed[order] = numbers.values
        expected = product(numbers.structure, numbers.values, numbers.x, passed=numbers.grad, tiling=TILINGS[0])
        for places in (order.int(), order):
            found = product(numbers.structure, placed, numbers.x, passed=numbers.grad, order=places, tiling=TILINGS[0])
            assert torch.equal(found, expected)
    empty = problem(0, 3, 4, 20, 0.0, torch.float32, device)
    none = torch.zeros(0, dtype=torch.int32, device=device)
    assert not product(empty.structure, empty.values, empty.x, order=none).any()


@pytest.mark.parametrize("density", [0.02, 0.2, 0.38, 0.55])
def test_rows_with_few_and_many_weights_in_a_slab(device: str, density: float) -> None:
    """Chunks of a gradient with up to 8 or 16 non-zeros are added up in other ways than those with more."""
    numbers = problem(7, 11, 70, 152, density, torch.float32, device)
    for tiling in TILINGS:
        check_sampled(numbers, tiling)
