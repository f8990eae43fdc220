"""The kernels for few samples against their plain definition, with every access to memory watched, and their packed copies."""

import itertools
import platform
from collections.abc import Sequence
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse_models.kernels.cpu import _compile
from sparse_models.kernels.cpu.few import bitmap, frozen, sliced
from sparse_models.kernels.structure import Structure
from sparse_models.layers._feature_major.csr_storage import compress
from tests.helpers.kernel_checks import Watcher, forget_kernels
from tests.strategies import generator, seeds

pytestmark = pytest.mark.usefixtures("poisoned")
DTYPES = [torch.float32, torch.float64, *(getattr(torch, name) for name in _compile.short_on_cpu())]
FORMS = [sliced, bitmap]
CASES = [(form, dtype) for form in FORMS for dtype in DTYPES if form is sliced or bitmap.is_possible(dtype)]
Drawn = tuple[Structure, Tensor, Tensor, Tensor]
each_case = pytest.mark.parametrize(("form", "dtype"), CASES, ids=str)


def define_product(structure: Structure, values: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
    """Return what `product` means: x times the dense matrix transposed, plus bias, added up in float64."""
    dense = structure.dense(values.double())
    return x.double() @ dense.t() + (0 if bias is None else bias.double())


def agrees(actual: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """See that a product is in its type what it is in float64, rounded once, but for what sums in float32 are off by.

    One that ends near 0 has passed numbers as large as the largest of the others, and was rounded as they were.
    """
    assert actual.dtype == dtype
    rtol = 1e-4 if dtype.itemsize > 2 else 1.5 * torch.finfo(dtype).eps
    off = 1e-10 if dtype == torch.float64 else max(1e-4, 4e-6 * float(expected.abs().max()))
    torch.testing.assert_close(actual.double(), expected, rtol=rtol, atol=off)


def problem(seed: int, rows: int, columns: int, density: float, dtype: torch.dtype, is_even: bool, batch: int = 1) -> Drawn:
    """Return a structure, values, x and bias; rows are as long as each other if even."""
    numbers = generator(seed)
    score = torch.rand(rows, columns, generator=numbers)
    mask = score <= score.kthvalue(max(1, int(density * columns)), 1, keepdim=True).values if is_even else score < density
    mask[0, -1] = True  # there is one, and the last column counts
    pointers, _, indices = compress(mask)
    indices = indices.short() if seed % 2 else indices
    shapes = (int(mask.sum()),), (batch, columns), (rows,)
    values, x, bias = (torch.randn(shape, generator=numbers).to(dtype) for shape in shapes)
    return Structure(pointers, indices, columns), values, x, bias


@st.composite
def problems(draw: st.DrawFn, forms: Sequence[Any] = FORMS) -> tuple[Any, Drawn]:
    """A form, and what its kernel takes: slices a window's columns or more, a bitmap any."""
    form, dtype = draw(st.sampled_from([case for case in CASES if case[0] in forms]))
    least, batch = sliced.fewest_columns(dtype) if form is sliced else 1, draw(st.integers(1, bitmap.LARGEST_BATCH))
    # Columns of several words, and of several panels; rows of more than a strip, and of several slices.
    columns = least + draw(st.integers(0, 200) | st.just(5000 - least))
    rows = draw(st.integers(1, 40) | st.sampled_from([64, 67, 131, 300]))
    density = draw(st.sampled_from([0.0, 0.01, 0.1, 0.3, 0.9]))
    return form, problem(draw(seeds), rows, columns, density, dtype, draw(st.booleans()), batch)


@settings(max_examples=30)
@given(problems(), st.booleans())
def test_the_product_is_what_its_definition_says(drawn: tuple[Any, Drawn], with_bias: bool) -> None:
    form, (structure, values, x, bias) = drawn
    added = bias if with_bias else None
    packed = form.pack(structure, values)
    agrees(frozen.product(packed, x, added), define_product(structure, values, x, added), x.dtype)
    packed.refill(-values)
    agrees(frozen.product(packed, x, added), define_product(structure, -values, x, added), x.dtype)


@settings(max_examples=10)
@given(problems([sliced]))
def test_each_value_is_packed_once_and_windows_lie_within_the_columns(drawn: tuple[Any, Drawn]) -> None:
    _, (structure, values, _, _) = drawn
    packed = sliced.pack(structure, values)
    numbered = sliced.pack(structure, torch.arange(1, len(values) + 1, dtype=torch.float64).to(values.dtype))
    if len(values) < 256:  # what every type tells apart
        held = numbered.values[numbered.values > 0]
        assert set(held.tolist()) == set(range(1, len(values) + 1))
    assert bool((packed.windows >= 0).all())
    # What is read of a window: all of it where it is permuted, and else what lanes have numbers of.
    narrow = not packed.way.is_permuted and structure.columns < packed.way.window
    read = int(packed.codes.max()) + 1 if narrow else packed.way.window
    assert bool((packed.windows + read <= structure.columns).all())


@pytest.mark.skipif((bitmap, torch.float32) not in CASES, reason="no bitmap")
@settings(max_examples=10)
@given(st.deferred(lambda: problems([bitmap])))
def test_a_bitmap_has_a_bit_and_a_value_for_each_weight_and_its_bytes_are_those(drawn: tuple[Any, Drawn]) -> None:
    _, (structure, values, _, _) = drawn
    packed = bitmap.pack(structure, values)
    assert sorted(packed.sources.tolist()) == list(range(len(values)))
    words = -(-structure.rows // 2) * 2 * -(-structure.columns // 64)
    assert sum(word.bit_count() for word in (packed.bits.numpy().view("uint64").tolist())) == len(values)
    assert packed.bytes_read == len(values) * values.element_size() + 64 + 8 * words + 4 * -(-structure.rows // 64)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_equal_length_fill_the_lanes(dtype: torch.dtype) -> None:
    """At a sparsity of .9 a quarter of the lanes has no weight, though columns are random."""
    structure, values, _, _ = problem(0, 64, 1024, 0.1, dtype, is_even=True)
    packed = sliced.pack(structure, values)
    assert len(packed.values) < 1.4 * len(values)


def test_what_a_thread_writes_are_rows_that_follow_one_another() -> None:
    structure, values, _, _ = problem(0, 4 * sliced.SORTED, 256, 0.1, torch.float32, is_even=False)
    packed = sliced.pack(structure, values)
    assert packed.rows is not None
    for number, own in enumerate(packed.rows.view(4, sliced.SORTED)):
        assert own.sort().values.tolist() == list(range(number * sliced.SORTED, (number + 1) * sliced.SORTED))


@pytest.mark.parametrize(("rows", "batch", "is_even"), [(32, 3, True), (32, 8, False), (71, 8, True), (71, 1, False)])
@each_case
def test_the_kernel_touches_what_is_its_own_and_no_two_threads_write_one_place(
    watcher: Watcher, form: Any, dtype: torch.dtype, rows: int, batch: int, is_even: bool
) -> None:
    # Twice a window are those columns from which on a step takes two weights of a row.
    columns = sliced.window(dtype) * (2 if batch == 8 else 1) + 5 if form is sliced else 1111
    structure, values, x, bias = problem(1, rows, columns, 0.05, dtype, is_even, batch)
    packed = form.pack(structure, values)
    agrees(frozen.product(packed, x, bias), define_product(structure, values, x, bias), dtype)
    assert watcher.written
    assert not watcher.outside
    assert not watcher.contested


@pytest.mark.parametrize("threads", [1, 2, 3])
@each_case
def test_any_number_of_threads_gives_the_same(form: Any, dtype: torch.dtype, threads: int) -> None:
    torch.set_num_threads(threads)
    structure, values, x, bias = problem(0, 137, 500, 0.2, dtype, is_even=False)
    packed = form.pack(structure, values)
    first = frozen.product(packed, x, bias)
    assert all(torch.equal(frozen.product(packed, x, bias), first) for _ in range(20))
    agrees(first, define_product(structure, values, x, bias), dtype)


@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from(DTYPES), st.floats(0, 1), st.integers(1, 9))
def test_a_form_is_chosen_for_what_it_takes(rows: int, columns: int, dtype: torch.dtype, density: float, batch: int) -> None:
    """Sparser weights are never left to the bitmap where denser ones are not, and slices take what their kernel does."""
    chosen, denser = (
        cast("Any", frozen.form_for(rows, columns, int(part * rows * columns), dtype, batch)) for part in (density, 1.0)
    )
    if chosen is sliced.pack:
        assert columns >= sliced.fewest_columns(dtype)
        assert batch <= sliced.most_samples(dtype)
    if chosen is bitmap.pack:
        assert denser is bitmap.pack
        assert bitmap.is_possible(dtype)
        assert batch <= bitmap.LARGEST_BATCH
    assert frozen.form_for(rows, columns, 0, dtype, batch) is None


@pytest.mark.skipif(frozen.largest_batch() < bitmap.LARGEST_BATCH, reason="slices take two samples")
def test_many_sparse_weights_are_left_to_the_product_of_any_number_of_samples() -> None:
    side = int(frozen.LARGE**0.5) + 1
    for batch in (frozen.SEVERAL + 1, bitmap.LARGEST_BATCH):
        assert frozen.form_for(side, side, frozen.LARGE // 20, torch.float32, batch) is None
        assert frozen.form_for(side, side, frozen.LARGE // 20, torch.bfloat16, batch) is sliced.pack
        assert frozen.form_for(side, side // 2, frozen.LARGE // 40, torch.float32, batch) is sliced.pack


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="features of x86")
@pytest.mark.parametrize("lacking", ["avx512", "avx512bf16"])
def test_without_instructions_there_is_another_way(monkeypatch: pytest.MonkeyPatch, lacking: str) -> None:
    """What is compiled for AVX2 alone, or for AVX-512 without bfloat16, asks for nothing that it lacks, and gives the same."""
    own = _compile.machine()
    features = ",".join(one for one in own.features.split(",") if lacking not in one and "avx10" not in one)
    widest = min(32, own.vector_bytes) if lacking == "avx512" else own.vector_bytes
    monkeypatch.setattr(_compile, "machine", lambda: own._replace(name="haswell", features=features, vector_bytes=widest))
    forget_kernels()
    for form, dtype in itertools.product(FORMS, DTYPES):
        if form is bitmap and not bitmap.is_possible(dtype):
            continue
        assert form is sliced or lacking != "avx512"
        structure, values, x, bias = problem(0, 40, 500, 0.2, dtype, is_even=False)
        agrees(frozen.product(form.pack(structure, values), x, bias), define_product(structure, values, x, bias), dtype)
    forget_kernels()
