"""Our own kernels against their plain definitions, with every access to memory watched."""

import ctypes
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from llvmlite import binding
from torch import Tensor

from sparse_models.errors import InputError
from sparse_models.kernels import _compile, _emit, _team, chain, tiled
from sparse_models.kernels.chain import Gradients, Link, define_gradients, gradients
from sparse_models.kernels.tiled import Structure, define_product, define_sampled, product, sampled
from sparse_models.layers import _csr_storage
from sparse_models.layers._csr_storage import compress
from sparse_models.layers.tiled import Tiled
from sparse_models.models import draw, sparse_mlp
from sparse_models.registry import LAYERS
from tests.strategies import seeds

# Below, at and above the width of one vector, of a whole tile, and of two.
BATCHES = [1, 2, 3, 15, 16, 17, 63, 64, 100, 127, 128, 129, 255, 257, 300]


@pytest.fixture(autouse=True)
def _poisoned() -> Iterator[None]:
    """Fill memory that is not initialised with NaN, and run two threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(mode=True)
    yield
    torch.use_deterministic_algorithms(mode=False)
    torch.set_num_threads(before)


def problem(
    seed: int, rows: int, columns: int, batch: int, density: float, dtype: torch.dtype
) -> tuple[Structure, Tensor, Tensor, Tensor, Tensor]:
    """Return a structure, values, x, bias and an output gradient; one row is full and one is empty where there are three."""
    numbers = torch.Generator().manual_seed(seed)
    mask = torch.rand(rows, columns, generator=numbers) < density
    if rows > 2:
        mask[0], mask[1] = True, False
    pointers, _, indices = compress(mask)
    sizes = [(int(mask.sum()),), (columns, batch), (rows,), (rows, batch)]
    values, x, bias, grad = (torch.randn(size, generator=numbers, dtype=dtype) for size in sizes)
    return Structure(pointers, indices, columns), values, x, bias, grad


problems = st.builds(
    problem,
    seeds,
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from(BATCHES),
    st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    st.sampled_from([torch.float32, torch.float64]),
)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4 if actual.dtype == torch.float32 else 1e-10)


@settings(max_examples=60)
@given(problems, st.booleans())
def test_the_product_is_what_its_definition_says(
    drawn: tuple[Structure, Tensor, Tensor, Tensor, Tensor], with_bias: bool
) -> None:
    structure, values, x, bias, _ = drawn
    added = bias if with_bias else None
    close(product(structure, values, x, added), define_product(structure, values, x, added))


@settings(max_examples=60)
@given(problems)
def test_the_sampled_product_is_what_its_definition_says(drawn: tuple[Structure, Tensor, Tensor, Tensor, Tensor]) -> None:
    structure, _, x, _, grad = drawn
    close(sampled(structure, grad, x), define_sampled(structure, grad, x))


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


class Watcher:
    """What a kernel reads and writes, and by which thread, held against the tensors that it may touch."""

    def __init__(self) -> None:
        self.may: list[tuple[int, int]] = []
        self.outside: list[tuple[int, int]] = []
        self.written: dict[int, set[int]] = {}
        self.contested: list[int] = []
        signature = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
        self.function = signature(self.see)
        self.thread = ctypes.CDLL(None).gettid

    def see(self, address: int, size: int, is_write: int) -> None:
        if not any(start <= address and address + size <= end for start, end in self.may):
            self.outside.append((address, size))
        if is_write:
            for place in range(address, address + size, 4):
                writers = self.written.setdefault(place, set())
                writers.add(self.thread())
                if len(writers) > 1:
                    self.contested.append(place)


@pytest.fixture
def watcher(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Watcher]:
    """Kernels built anew, so that they tell a Watcher of every access; `run` tells it which tensors they are given."""
    watcher = Watcher()
    monkeypatch.setenv("SPARSE_MODELS_CACHE", str(tmp_path))
    monkeypatch.setattr(_emit, "WATCH", "watched")
    binding.add_symbol("watched", ctypes.cast(watcher.function, ctypes.c_void_p).value)
    kernels = (tiled._product, tiled._sampled, tiled._single, tiled._single_sampled, chain._gradients)

    def run(function: int, arguments: list[Tensor | int], team: int) -> None:
        tensors = [argument for argument in arguments if isinstance(argument, Tensor)]
        watcher.may = [(one.data_ptr(), one.data_ptr() + one.numel() * one.element_size()) for one in tensors]
        watcher.written = {}  # what is freed after a run may be given to the next
        _team.run(function, arguments, team)

    for module in (tiled, chain):
        monkeypatch.setattr(module, "run", run)
    for kernel in kernels:
        kernel.cache_clear()
    yield watcher
    for kernel in kernels:
        kernel.cache_clear()


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
    product(wrong, values, x)
    assert watcher.outside


def test_compiled_code_is_kept_and_damaged_code_is_not_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPARSE_MODELS_CACHE", str(tmp_path))
    structure, values, x, _, _ = problem(0, 3, 4, 40, 0.5, torch.float32)
    expected = define_product(structure, values, x, None)

    def files() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}

    def once() -> None:
        tiled._product.cache_clear()
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
    tiled._product.cache_clear()
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

    monkeypatch.setattr(_csr_storage, "compress", in_64_bit)
    with pytest.raises(InputError, match="expected fewer than 2147483648 rows, columns and non-zeros"):
        LAYERS["tiled"](torch.rand(4, 4), torch.ones(4, 4, dtype=torch.bool))
    assert _compile.vector_bytes() in (16, 32, 64)


def links(seed: int, sizes: tuple[int, ...], density: float, dtype: torch.dtype, *, with_bias: bool) -> list[Link]:
    numbers, found = torch.Generator().manual_seed(seed), []
    for inputs, outputs in itertools.pairwise(sizes):
        weight, bias = (torch.randn(size, generator=numbers, dtype=dtype) for size in ((outputs, inputs), (outputs,)))
        mask = torch.rand(outputs, inputs, generator=numbers) < density
        found.append(Tiled(weight, mask, bias if with_bias else None).link())
    return found


@settings(max_examples=40)
@given(
    seeds,
    st.lists(st.integers(1, 30), min_size=2, max_size=5).map(tuple),
    st.sampled_from(BATCHES),
    st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    st.sampled_from([torch.float32, torch.float64]),
    st.booleans(),
    st.booleans(),
)
def test_a_chain_has_the_loss_and_gradients_of_its_definition(
    seed: int, sizes: tuple[int, ...], batch: int, density: float, dtype: torch.dtype, with_bias: bool, feature_major: bool
) -> None:
    numbers = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, sizes[0], generator=numbers, dtype=dtype)
    x = x.t().contiguous().t() if feature_major else x
    labels = torch.randint(sizes[-1], (batch,), generator=numbers)
    linked = links(seed, sizes, density, dtype, with_bias=with_bias)
    found, defined = gradients(linked, x, labels), define_gradients(linked, x, labels)
    close(found.loss, defined.loss)
    for mine, its in zip([*found.values, *found.biases], [*defined.values, *defined.biases], strict=True):
        close(mine, its)


def test_logits_of_any_size_have_a_finite_loss() -> None:
    [link] = links(0, (4, 3), 1.0, torch.float32, with_bias=True)
    x, labels = 1e4 * torch.randn(20, 4, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3
    found, defined = gradients([link], x, labels), define_gradients([link], x, labels)
    torch.testing.assert_close(found.loss, defined.loss)
    torch.testing.assert_close(found.values[0], defined.values[0])


@pytest.mark.parametrize("batch", [1, 70, 300, 1100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_chain_touches_what_is_its_own(watcher: Watcher, batch: int, dtype: torch.dtype) -> None:
    numbers = torch.Generator().manual_seed(0)
    x, labels = torch.randn(batch, 4, generator=numbers, dtype=dtype), torch.randint(3, (batch,), generator=numbers)
    gradients(links(0, (4, 5, 3), 0.5, dtype, with_bias=True), x, labels)
    assert watcher.written
    assert not watcher.outside
    assert not watcher.contested


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_chain_always_gives_the_same_on_a_number_of_threads(threads: int) -> None:
    torch.set_num_threads(threads)
    linked = links(0, (20, 30, 10), 0.3, torch.float32, with_bias=True)
    x, labels = torch.rand(1500, 20), torch.arange(1500) % 10
    first = gradients(linked, x, labels)
    for _ in range(10):
        again = gradients(linked, x, labels)
        assert torch.equal(first.loss, again.loss)
        assert all(torch.equal(*pair) for pair in zip(first.values, again.values, strict=True))


def test_a_fused_step_is_the_step_layer_by_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its gradients are in the parameters, it scales as the loss does, and what watches single layers is not passed over."""
    model = sparse_mlp(draw((6, 8, 7, 4)), "tiled", 0.5, torch.Generator().manual_seed(0))
    x, labels = torch.randn(50, 6, dtype=torch.float64), torch.arange(50) % 4
    runs: list[int] = []

    def counted(*given: Any) -> Gradients:
        runs.append(1)
        return gradients(*given)

    monkeypatch.setattr("sparse_models.layers.tiled.chain.gradients", counted)

    def told(*, fused: bool) -> tuple[Tensor, list[Tensor | None]]:
        model.zero_grad()
        loss = model.cross_entropy(x, labels, fused=fused)
        (3 * loss).backward()
        return loss.detach(), [parameter.grad for parameter in model.parameters()]

    by_layer = told(fused=False)
    assert not runs
    torch.testing.assert_close(told(fused=True), by_layer)
    assert runs == [1]
    seen: list[int] = []
    handle = next(iter(model)).register_forward_hook(lambda *_: seen.append(1))
    torch.testing.assert_close(told(fused=True), by_layer)
    handle.remove()
    assert (runs, seen) == ([1], [1])
    with torch.no_grad():
        torch.testing.assert_close(model.cross_entropy(x, labels), by_layer[0])
    asked = x.clone().requires_grad_()
    model.cross_entropy(asked, labels).backward()
    assert asked.grad is not None
    assert runs == [1]
