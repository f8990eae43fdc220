"""The kernel for a single sample against its plain definition, with every access to memory watched, and its packed copies."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.func import functional_call
from torch.nn.utils import prune

from sparse_models.errors import InputError
from sparse_models.kernels.cpu import sliced
from sparse_models.kernels.cpu._compile import vector_bytes
from sparse_models.kernels.structure import Structure
from sparse_models.layers._feature_major.csr_storage import compress
from sparse_models.layers.tiled import Tiled
from sparse_models.masks import random_mask
from sparse_models.training import OPTIMIZERS
from sparse_models.updates import move_mask
from tests.helpers.kernel_checks import Watcher, close
from tests.strategies import generator, normal, seeds

pytestmark = pytest.mark.usefixtures("poisoned")
DTYPES = [torch.float32, torch.float64]
Drawn = tuple[Structure, Tensor, Tensor, Tensor]


def define_product(structure: Structure, values: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
    """Return what `product` means: the dense matrix times x, plus bias."""
    rows = torch.repeat_interleave(torch.arange(structure.rows), structure.pointers.diff())
    dense = values.new_zeros(structure.rows, structure.columns).index_put_((rows, structure.indices.long()), values)
    return dense @ x if bias is None else dense @ x + bias


def problem(seed: int, rows: int, more: int, density: float, dtype: torch.dtype, is_even: bool) -> Drawn:
    """Return a structure of a window's columns and `more`, values, x and bias; rows are as long as each other if even."""
    numbers = generator(seed)
    columns = sliced.window(dtype) + more
    score = torch.rand(rows, columns, generator=numbers)
    mask = score <= score.kthvalue(max(1, int(density * columns)), 1, keepdim=True).values if is_even else score < density
    mask[0, -1] = True  # there is one, and the last column counts
    pointers, _, indices = compress(mask)
    indices = indices.short() if seed % 2 else indices
    values, x, bias = (torch.randn(size, generator=numbers, dtype=dtype) for size in (int(mask.sum()), columns, rows))
    return Structure(pointers, indices, columns), values, x, bias


problems = st.builds(
    problem, seeds, st.integers(1, 40), st.integers(0, 70), st.sampled_from([0.0, 0.01, 0.1, 0.3]),
    st.sampled_from(DTYPES), st.booleans(),
)  # fmt: skip


@settings(max_examples=40)
@given(problems, st.booleans())
def test_the_product_is_what_its_definition_says(drawn: Drawn, with_bias: bool) -> None:
    structure, values, x, bias = drawn
    added = bias if with_bias else None
    packed = sliced.pack(structure, values)
    close(sliced.product(packed, x, added), define_product(structure, values, x, added))
    sliced.refill(packed, -values)
    close(sliced.product(packed, x, added), define_product(structure, -values, x, added))


@settings(max_examples=20)
@given(problems)
def test_each_value_is_packed_once_and_windows_lie_within_the_columns(drawn: Drawn) -> None:
    structure, values, _, _ = drawn
    packed, lanes = sliced.pack(structure, values), vector_bytes() // values.element_size()
    numbered = sliced.pack(structure, torch.arange(1, len(values) + 1, dtype=values.dtype))
    held = numbered.values[numbered.values > 0]
    assert set(held.tolist()) == set(range(1, len(values) + 1))
    if structure.rows % lanes == 0:
        assert len(held) == len(values)
    assert bool((packed.windows >= 0).all())
    assert bool((packed.windows + sliced.window(values.dtype) <= structure.columns).all())


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_equal_length_fill_the_lanes(dtype: torch.dtype) -> None:
    """At a sparsity of .9 a fifth of the lanes has no weight, though columns are random."""
    structure, values, _, _ = problem(0, 64, 1024 - sliced.window(dtype), 0.1, dtype, is_even=True)
    packed = sliced.pack(structure, values)
    assert len(packed.values) < 1.4 * len(values)


@pytest.mark.parametrize("is_even", [True, False])
@pytest.mark.parametrize("rows", [32, 21])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_kernel_touches_what_is_its_own_and_no_two_threads_write_one_place(
    watcher: Watcher, dtype: torch.dtype, rows: int, is_even: bool
) -> None:
    structure, values, x, bias = problem(1, rows, 5, 0.05, dtype, is_even)
    packed = sliced.pack(structure, values)
    close(sliced.product(packed, x, bias), define_product(structure, values, x, bias))
    assert watcher.written
    assert not watcher.outside
    assert not watcher.contested


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_any_number_of_threads_gives_the_same(threads: int) -> None:
    torch.set_num_threads(threads)
    structure, values, x, bias = problem(0, 37, 100, 0.2, torch.float32, is_even=False)
    packed = sliced.pack(structure, values)
    first = sliced.product(packed, x, bias)
    assert all(torch.equal(sliced.product(packed, x, bias), first) for _ in range(20))
    close(first, define_product(structure, values, x, bias))


def multiplied(layer: Tiled, x: Tensor) -> Tensor:
    return x @ layer.to_dense().t() + (0 if layer.bias is None else layer.bias.detach())


def layer_and_sample(bias: bool = True, dtype: torch.dtype = torch.float32) -> tuple[Tiled, Tensor]:
    weight, x = normal(0, 20, 300, dtype=dtype), normal(1, 1, 300, dtype=dtype)
    return Tiled(weight, random_mask((20, 300), 0.9, generator(0)), normal(2, 20, dtype=dtype) if bias else None).eval(), x


def holds(layer: Tiled, x: Tensor) -> None:
    """See that the layer gives what it holds, by its kernel for one sample, twice and both times anew."""
    with torch.no_grad():
        first, second = layer(x), layer(x)
    close(first, multiplied(layer, x))
    assert torch.equal(first, second)
    assert first.data_ptr() != second.data_ptr()
    assert isinstance(layer.frozen, sliced.Frozen)
    assert layer.frozen.ready is not None


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_layer_follows_its_weights_its_bias_and_its_mask(dtype: torch.dtype, bias: bool) -> None:
    layer, x = layer_and_sample(bias, dtype)
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
        move_mask(layer, random_mask((20, 300), 0.9, generator(number + 1)), in_place=in_place)
        holds(layer, x)
    move_mask(layer, random_mask((20, 300), 0.5, generator(3)))
    holds(layer, x)
    holds(layer, 2 * x)
    layer.load_state_dict(layer_and_sample(bias, dtype)[0].state_dict())
    holds(layer, x)
    holds(copy.deepcopy(layer), x)
    holds(layer.double(), x.double())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_step_in_eval_mode_is_seen_though_optimizers_of_one_kernel_count_no_change(optimizer: str) -> None:
    layer, x = layer_and_sample()
    holds(layer, x)
    chosen = OPTIMIZERS[optimizer](layer.parameters(), lr=0.1)
    for batch in (1, 3):
        layer(x.expand(batch, -1)).sum().backward()
        chosen.step()
        holds(layer, x)


def test_what_is_not_as_it_was_is_looked_up_again() -> None:
    layer, x = layer_and_sample(bias=False)
    holds(layer, x)
    with torch.no_grad():
        close(layer(x.repeat(3, 1))[1:2], layer(x))
        assert layer(x[:0]).shape == (0, 20)
        with pytest.raises(InputError, match="expected an input of"):
            layer(x.double())
        close(layer(x.t().repeat(1, 2).t()[:1]), layer(x))
        wide = torch.cat([x, x], 1)[:, ::2]
        close(layer(wide), multiplied(layer, wide))
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        holds(layer, x)
        assert isinstance(layer.frozen, sliced.Frozen)
        assert layer.frozen.ready is not None
        assert layer.frozen.ready.team == 1
        torch.set_num_threads(before)
        prune.custom_from_mask(layer, "values", torch.arange(layer.nnz) % 2)
        close(layer(x), x @ layer.unpack(layer.values).t())


def test_a_bias_that_lies_where_the_layers_own_does_is_not_taken_for_it() -> None:
    layer, x = layer_and_sample()
    holds(layer, x)
    assert layer.bias is not None
    with torch.no_grad(), pytest.raises(InputError, match="a bias of shape"):
        functional_call(layer, {"bias": layer.bias.detach()[:1].expand(20)}, (x,))


def test_a_layer_counts_the_bytes_that_its_last_product_read() -> None:
    layer, x = layer_and_sample()
    before = layer.weight_bytes
    with torch.no_grad():
        layer(x)
    structure = layer.structures[0]
    assert layer.weight_bytes == sliced.pack(structure, layer.values).bytes_read != before
