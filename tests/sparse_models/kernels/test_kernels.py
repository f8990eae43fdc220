"""Our own kernels against their plain definitions, with every access to memory watched."""

import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse_models.errors import InputError
from sparse_models.kernels.candidates import first_of
from sparse_models.kernels.cpu import _team
from sparse_models.kernels.cpu._compile import short_on_cpu
from sparse_models.kernels.cpu.csr import _panels
from sparse_models.kernels.cpu.csr._panels import default, panel_pieces
from sparse_models.kernels.cpu.tiled import _plan, define_product, define_sampled, product, sampled, sampled_and_summed
from sparse_models.kernels.structure import PIECE, Sizes, Structure, cut
from sparse_models.layers import LAYERS
from sparse_models.layers._feature_major import csr_storage
from sparse_models.layers._feature_major.csr_storage import compress
from tests.helpers.kernel_checks import BATCHES, Watcher, close, forget_kernels
from tests.strategies import seeds

pytestmark = pytest.mark.usefixtures("poisoned")


def problem(
    seed: int, rows: int, columns: int, batch: int, density: float, dtype: torch.dtype
) -> tuple[Structure, Tensor, Tensor, Tensor, Tensor]:
    """Return a structure, values, x, bias and an output gradient; one row is full and one is empty where there are three.

    With two seeds of three it is known where pieces of columns start.
    """
    numbers = torch.Generator().manual_seed(seed)
    mask = torch.rand(rows, columns, generator=numbers) < density
    if rows > 2:
        mask[0], mask[1] = True, False
    pointers, _, indices = compress(mask)
    indices = indices.short() if seed % 2 else indices  # 16 bits, or 32
    sizes = [(int(mask.sum()),), (columns, batch), (rows,), (rows, batch)]
    values, x, bias, grad = (torch.randn(size, generator=numbers, dtype=dtype) for size in sizes)
    starts = cut(pointers, indices, columns) if seed % 3 else None
    return Structure(pointers, indices, columns, starts), values, x, bias, grad


PANELS = [0, 1]  # bytes: all columns at once, or as few as can be


problems = st.builds(
    problem,
    seeds,
    st.integers(1, 40),
    st.integers(1, 3 * PIECE),
    st.sampled_from(BATCHES),
    st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    st.sampled_from([torch.float32, torch.float64]),
)


@settings(max_examples=40)
@given(problems, st.booleans(), st.booleans(), st.booleans(), st.sampled_from(PANELS))
def test_the_product_is_what_its_definition_says(
    drawn: tuple[Structure, Tensor, Tensor, Tensor, Tensor], with_bias: bool, relu: bool, with_passed: bool, panel_bytes: int
) -> None:
    structure, values, x, bias, grad = drawn
    added, passed = bias if with_bias else None, grad if with_passed else None
    defined = define_product(structure, values, x, added, relu=relu, passed=passed)
    variant = default(structure.sizes)._replace(panel_bytes=panel_bytes)
    close(product(structure, values, x, added, relu=relu, passed=passed, variant=variant), defined)


@given(problems, st.sampled_from(short_on_cpu()), st.booleans(), st.sampled_from(PANELS))
def test_values_in_16_bit_are_widened_as_they_are_read(
    drawn: tuple[Structure, Tensor, Tensor, Tensor, Tensor], dtype: str, is_ordered: bool, panel_bytes: int
) -> None:
    structure, values, x, bias, _ = drawn
    short, x, bias = values.to(getattr(torch, dtype)), x.float(), bias.float()
    order = torch.arange(len(values), dtype=torch.int32).flip(0) if is_ordered else None
    variant = default(structure.sizes)._replace(panel_bytes=panel_bytes)
    products = [product(structure, held, x, bias, order=order, variant=variant) for held in (short, short.float())]
    assert torch.equal(*products)


@settings(max_examples=30)
@given(problems, st.sampled_from(PANELS))
def test_the_sampled_product_is_what_its_definition_says(
    drawn: tuple[Structure, Tensor, Tensor, Tensor, Tensor], panel_bytes: int
) -> None:
    structure, _, x, _, grad = drawn
    variant = default(structure.sizes)._replace(panel_bytes=panel_bytes)
    found, sums = sampled_and_summed(structure, grad, x, variant)
    close(found, define_sampled(structure, grad, x))
    close(sums, grad.sum(1))


@pytest.mark.parametrize("first_cache", [0, 2**15, 3 * 2**14, 2**16])
def test_a_thread_has_as_much_to_do_as_another_and_panels_only_where_they_pay(
    first_cache: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_panels, "first_cache", lambda: first_cache)
    monkeypatch.setattr(_panels, "vector_bytes", lambda: 64)
    for sizes, wide, narrow in (((1536, 384), 4, 6), ((3072, 1024), 11, 16), ((40, 96), 1, 2)):
        found = Sizes(*sizes, nnz=sizes[0] * sizes[1] // 5, pieces=-(-sizes[1] // PIECE), index_bytes=2)
        variant = default(found)._replace(threads=2)
        panels = -(-found.pieces // panel_pieces(found, variant.vectors, variant))
        assert panels == (narrow if first_cache == 2**15 else wide)
        assert _plan(found, 128, "float32", variant).numbers[6] % 2 == 0
        sparse = found._replace(nnz=found.nnz // 5)
        assert panel_pieces(sparse, variant.vectors, variant) == sparse.pieces


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_few_samples_have_vectors_that_they_fill(dtype: torch.dtype) -> None:
    sizes = Sizes(1536, 384, nnz=1536 * 384 // 5, pieces=12, index_bytes=2)
    widest, most = default(sizes).vector_bytes, default(sizes).vector_bytes // dtype.itemsize
    assert first_of(sizes, most // 2 + 1, dtype) == default(sizes)
    few = first_of(sizes, max(1, most // 2), dtype)
    assert (few.vector_bytes, few.panel_bytes) == ((widest // 2, 0) if widest > 16 else (widest, default(sizes).panel_bytes))


@given(problems)
def test_pieces_of_columns_start_where_they_do(drawn: tuple[Structure, Tensor, Tensor, Tensor, Tensor]) -> None:
    structure = drawn[0]
    starts = cut(structure.pointers, structure.indices, structure.columns)
    assert (starts is None) == (structure.columns <= PIECE)
    for piece, found in enumerate([] if starts is None else starts):
        before = structure.indices < piece * PIECE
        counts = [int(before[start:end].sum()) for start, end in itertools.pairwise(structure.pointers.tolist())]
        assert torch.equal(found, structure.pointers[:-1] + torch.tensor(counts, dtype=torch.int32))


@given(problems, seeds)
def test_a_product_of_values_in_another_order_is_that_of_values_put_in_order(
    drawn: tuple[Structure, Tensor, Tensor, Tensor, Tensor], seed: int
) -> None:
    structure, values, x, bias, _ = drawn
    order = torch.randperm(len(values), generator=torch.Generator().manual_seed(seed)).int()
    for variant in (default(structure.sizes), default(structure.sizes)._replace(vectors=1, panel_bytes=1)):
        ordered = product(structure, values, x, bias, order=order, variant=variant)
        assert torch.equal(ordered, product(structure, values[order.long()], x, bias, variant=variant))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("batch", [1, 100, 2000])
def test_a_number_of_threads_always_gives_the_same(threads: int, batch: int) -> None:
    torch.set_num_threads(threads)
    structure, values, x, bias, grad = problem(0, 37, 50, batch, 0.2, torch.float32)
    close(product(structure, values, x, bias), define_product(structure, values, x, bias))
    close(sampled(structure, grad, x), define_sampled(structure, grad, x))
    for _ in range(20):
        assert torch.equal(product(structure, values, x, bias), product(structure, values, x, bias))
        assert torch.equal(sampled(structure, grad, x), sampled(structure, grad, x))


def test_no_batch_and_no_non_zeros() -> None:
    structure, values, x, bias, grad = problem(0, 3, 4, 0, 0.5, torch.float32)
    assert product(structure, values, x, bias).shape == (3, 0)
    assert torch.equal(sampled(structure, grad, x), torch.zeros(len(values)))
    empty = Structure(torch.zeros(3, dtype=torch.int32), torch.zeros(0, dtype=torch.int32), 4)
    assert torch.equal(product(empty, torch.zeros(0), torch.rand(4, 20)), torch.zeros(2, 20))
    assert sampled(empty, torch.rand(2, 20), torch.rand(4, 20)).shape == (0,)


@pytest.mark.parametrize("batch", [1, 3, 64, 70, 300, 1100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kernels_touch_what_is_theirs_and_no_two_threads_write_one_place(
    watcher: Watcher, batch: int, dtype: torch.dtype
) -> None:
    structure, values, x, bias, grad = problem(1, 5, 6, batch, 0.4, dtype)
    close(product(structure, values, x, bias), define_product(structure, values, x, bias))
    close(sampled(structure, grad, x), define_sampled(structure, grad, x))
    assert watcher.written
    assert not watcher.outside
    assert not watcher.contested


def test_the_watcher_sees_what_is_out_of_bounds(watcher: Watcher) -> None:
    structure, values, x, _, _ = problem(1, 5, 6, 64, 0.4, torch.float32)
    wrong = Structure(structure.pointers, structure.indices + 16, 6)
    # Of one thread: beyond its packed rows there would be those of another.
    product(wrong, values, x, variant=default(structure.sizes)._replace(threads=1))
    assert watcher.outside


def test_compiled_code_is_kept_and_damaged_code_is_not_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPARSE_MODELS_CACHE", str(tmp_path))
    structure, values, x, _, _ = problem(0, 3, 4, 40, 0.5, torch.float32)
    expected = define_product(structure, values, x, None)

    def files() -> dict[str, int]:
        return {path.name: path.stat().st_ino for path in tmp_path.iterdir()}

    def once() -> None:
        forget_kernels()
        close(product(structure, values, x), expected)

    once()
    [made] = files()
    first = files()
    once()
    assert files() == first
    whole = (tmp_path / made).read_bytes()
    for damaged in (whole[:-1], b"", whole[:100] + b"\0" + whole[101:]):
        (tmp_path / made).write_bytes(damaged)
        once()
        assert (tmp_path / made).read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSE_MODELS_CACHE", "/proc/nowhere")
    forget_kernels()
    structure, values, x, _, _ = problem(0, 3, 4, 40, 0.5, torch.float32)
    close(product(structure, values, x), define_product(structure, values, x, None))


def test_kernels_run_on_the_threads_of_torch() -> None:
    """Torch's own operation has made its team of two; kernels make no third thread."""
    torch.rand(512, 512) @ torch.rand(512, 512)
    structure, values, x, bias, grad = problem(0, 37, 50, 2000, 0.2, torch.float32)
    before = len(list(Path("/proc/self/task").iterdir())) if Path("/proc/self/task").exists() else 0
    product(structure, values, x, bias)
    sampled(structure, grad, x)
    assert _team.threads() == 2
    assert not before or len(list(Path("/proc/self/task").iterdir())) <= before


def test_more_non_zeros_than_32_bit_indices_hold_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def in_64_bit(mask: Tensor) -> tuple[Tensor, ...]:
        return tuple(part.long() for part in compress(mask))

    monkeypatch.setattr(csr_storage, "compress", in_64_bit)
    with pytest.raises(InputError, match="expected fewer than 2147483648 rows, columns and non-zeros"):
        LAYERS["tiled"](torch.rand(4, 4), torch.ones(4, 4, dtype=torch.bool))
