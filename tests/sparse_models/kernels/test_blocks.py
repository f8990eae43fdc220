"""Kernels of block-sparse matrices against their plain definitions, with every access to memory watched."""

import copy
import itertools
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sparse_models.errors import InputError
from sparse_models.kernels.chain import define_gradients, layer_by_layer
from sparse_models.kernels.cpu._pass import tile_by_tile
from sparse_models.kernels.cpu.blocks.products import define_product, define_sampled, product, sampled, sampled_and_summed
from sparse_models.kernels.link import Link
from sparse_models.kernels.structure import BlockStructure
from sparse_models.layers.block import Block, of_size
from sparse_models.masks import random_score
from sparse_models.testing import Problem, gate
from tests.helpers.kernel_checks import BATCHES, Watcher, close
from tests.strategies import generator, normal, seeds

pytestmark = pytest.mark.usefixtures("poisoned")
Drawn = tuple[BlockStructure, BlockStructure, Tensor, Tensor, Tensor, Tensor]
# Sizes that fill vectors, that are a part of one, that are of no power of 2, of which neither side is the other, and of which
# not all columns are summed up at a time.
UNITS = [(1, 1), (4, 4), (8, 8), (16, 16), (32, 16), (3, 5), (4, 12), (20, 2), (4, 32)]
RAGGED = [(3, 5), (4, 12)]


def problem(seed: int, unit: tuple[int, int], shape: tuple[int, int], batch: int, density: float, dtype: torch.dtype) -> Drawn:
    """Return a layer's structures and values, x, bias and an output gradient; a row of blocks is full, and one empty."""
    numbers, (rows, columns) = generator(seed), shape
    weight, x, bias, grad = (
        torch.randn(size, generator=numbers, dtype=dtype)
        for size in ((rows, columns), (columns, batch), (rows,), (rows, batch))
    )
    layer_class = of_size(*unit)
    mask = layer_class.pattern.from_score(random_score(shape, numbers), 1 - density)
    if rows > 2 * unit[0]:
        mask[: unit[0]], mask[unit[0] : 2 * unit[0]] = True, False
    layer = layer_class(weight, mask)
    return *layer.structures, layer.values.detach(), x, bias, grad


problems = st.builds(
    problem,
    seeds,
    st.sampled_from(UNITS),
    st.tuples(st.integers(1, 70), st.integers(1, 70)),
    st.sampled_from(BATCHES),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.sampled_from([torch.float32, torch.float64]),
)


def check(drawn: Drawn) -> None:
    """Hold all products of a problem against their definitions, the fused parts of each once."""
    rows, columns, values, x, bias, grad = drawn
    for result, defined in (
        (product(rows, values, x, bias), define_product(rows, values, x, bias)),
        (product(rows, values, x, bias, relu=True), define_product(rows, values, x, bias, relu=True)),
        (product(columns, values, grad), define_product(columns, values, grad)),
        (product(columns, values, grad, passed=x), define_product(columns, values, grad, passed=x)),
        (sampled(rows, grad, x), define_sampled(rows, grad, x)),
        (sampled_and_summed(rows, grad, x)[1], grad.sum(1)),
    ):
        assert result.is_contiguous()
        close(result, defined)


@given(problems)
def test_products_are_what_their_definitions_say(drawn: Drawn) -> None:
    check(drawn)


@pytest.mark.parametrize("unit", RAGGED)
def test_gradients_are_exactly_0_beyond_the_edges(unit: tuple[int, int]) -> None:
    for batch in (1, 70):
        rows, _, _, x, _, grad = problem(0, unit, (11, 13), batch, 1.0, torch.float32)
        whole = rows.at(torch.ones(11, 13))
        assert not whole.all()
        assert not sampled(rows, grad, x)[whole == 0].any()


@pytest.mark.parametrize("batch", [1, 100, 1100])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_number_of_threads_always_gives_the_same(threads: int, batch: int) -> None:
    torch.set_num_threads(threads)
    drawn = problem(0, (4, 4), (37, 50), batch, 0.4, torch.float32)
    check(drawn)
    rows, _, values, x, bias, grad = drawn
    first = product(rows, values, x, bias), sampled(rows, grad, x)
    for _ in range(20):
        assert torch.equal(product(rows, values, x, bias), first[0])
        assert torch.equal(sampled(rows, grad, x), first[1])


def test_no_batch_and_no_blocks() -> None:
    rows, columns, values, x, bias, grad = problem(0, (4, 4), (5, 6), 0, 1.0, torch.float32)
    assert product(rows, values, x, bias).shape == (5, 0)
    assert not sampled(rows, grad, x).any()
    rows, columns, values, x, bias, grad = problem(0, (4, 4), (5, 6), 20, 0.0, torch.float32)
    assert torch.equal(product(rows, values, x, bias), bias[:, None].expand(5, 20))
    assert torch.equal(product(columns, values, grad), torch.zeros(6, 20))
    assert sampled(rows, grad, x).shape == (0, 4, 4)


@pytest.mark.parametrize("batch", [1, 3, 70, 1100])
@pytest.mark.parametrize("unit", [(4, 4), (3, 5)])
def test_kernels_touch_what_is_theirs_and_no_two_threads_write_one_place(
    watcher: Watcher, batch: int, unit: tuple[int, int]
) -> None:
    check(problem(1, unit, (11, 13), batch, 0.4, torch.float32 if batch % 2 else torch.float64))
    assert watcher.written
    assert not watcher.outside
    assert not watcher.contested


@pytest.mark.parametrize(
    ("columns", "batch", "place"), [(16, 128, 0), (16, 160, 0), (16, 1024, 0), (16, 128, 1), (60, 1024, 0)]
)
def test_tiles_that_lie_as_they_are_wanted_and_others_are_read_right(
    watcher: Watcher, columns: int, batch: int, place: int
) -> None:
    """Whole tiles side by side, one that is none, tiles far apart, those at no cache line, and too many rows too far apart."""
    rows, transposed, values, x, bias, grad = problem(2, (4, 8), (12, columns), batch, 0.4, torch.float32)
    memory = torch.empty(x.numel() + 16)
    start = -memory.data_ptr() // 4 % 16 + place
    x = memory[start : start + x.numel()].view_as(x).copy_(x)
    check((rows, transposed, values, x, bias, grad))
    assert not watcher.outside


def test_the_watcher_sees_what_is_out_of_bounds(watcher: Watcher) -> None:
    rows, _, values, x, _, _ = problem(1, (4, 4), (11, 13), 70, 0.4, torch.float32)
    product(rows._replace(indices=rows.indices + 16), values, x)
    assert watcher.outside


def links(unit: tuple[int, int], sizes: tuple[int, ...], dtype: torch.dtype) -> list[Link]:
    layer_class, found = of_size(*unit), []
    for number, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        mask = layer_class.pattern.from_score(random_score((outputs, inputs), generator(number)), 0.5)
        weight, bias = normal(number, outputs, inputs, dtype=dtype), normal(number, outputs, dtype=dtype)
        found.append(layer_class(weight, mask, bias).link())
    return found


@pytest.mark.parametrize("batch", [1, 70, 300])
@pytest.mark.parametrize(
    ("unit", "sizes", "dtype"),
    [((4, 4), (12, 20, 8, 5), torch.float32), ((3, 5), (11, 16, 7), torch.float64), ((32, 32), (70, 40), torch.float32)],
)
def test_a_chain_has_the_loss_and_gradients_of_its_definition(
    unit: tuple[int, int], sizes: tuple[int, ...], dtype: torch.dtype, batch: int
) -> None:
    check_chain(links(unit, sizes, dtype), normal(0, batch, sizes[0], dtype=dtype))


@pytest.mark.parametrize("batch", [1, 300])
def test_a_chain_touches_what_is_its_own(watcher: Watcher, batch: int) -> None:
    check_chain(links((3, 5), (11, 16, 7), torch.float64), normal(0, batch, 11))
    assert watcher.written
    assert not watcher.outside
    assert not watcher.contested


def check_chain(linked: list[Link], x: Tensor) -> None:
    """Hold a pass through a chain, tile by tile and layer by layer, against its definition."""
    labels = torch.arange(len(x)) % linked[-1].rows.rows
    defined = define_gradients(linked, x, labels)
    for found in (tile_by_tile(linked, x, labels), layer_by_layer(linked, x, labels)):
        close(found.loss, defined.loss)
        for mine, its in zip([*found.values, *found.biases], [*defined.values, *defined.biases], strict=True):
            close(mine, its)
        for link, gradient in zip(linked, found.values, strict=True):
            assert not gradient[link.rows.at(torch.ones(link.rows.rows, link.rows.columns)) == 0].any()


@pytest.mark.parametrize("way", [tile_by_tile, layer_by_layer])
def test_what_is_not_a_number_is_not_hidden(way: object) -> None:
    linked, x = links((3, 5), (11, 16, 7), torch.float32), normal(0, 20, 11, dtype=torch.float32)
    x[7] = torch.nan
    assert callable(way)
    assert way(linked, x, torch.arange(20) % 7).loss.isnan()


def test_what_lies_beyond_the_edges_stays_0_in_a_training() -> None:
    layer_class = of_size(3, 5)
    mask = layer_class.pattern.from_score(random_score((11, 13), generator(0)), 0.3)
    layer = layer_class(normal(0, 11, 13), mask, normal(1, 11))
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    for seed in range(3):
        layer(normal(seed, 20, 13)).square().sum().backward()
        optimizer.step()
    assert torch.equal(layer.pack(layer.to_dense()), layer.values)
    assert layer.nnz == int(mask.sum()) < layer.multiply_adds.forward == layer.values.numel()


def test_blocks_of_any_size_pass_the_gate_and_have_one_class_that_can_be_pickled() -> None:
    layer_class = of_size(3, 5)
    assert of_size(3, 5) is layer_class
    mask = layer_class.pattern.from_score(random_score((23, 31), generator(0)), 0.5)
    gate(layer_class, Problem(normal(0, 23, 31), mask, normal(1, 23), normal(2, 70, 31), normal(3, 70, 23)))
    layer = layer_class(normal(0, 23, 31), mask)
    copied = pickle.loads(pickle.dumps(layer))  # noqa: S301  # our own
    assert torch.equal(copied.to_dense(), layer.to_dense())
    with pytest.raises(InputError, match="expected blocks of at least 1 x 1 weights, got 0 x 5"):
        of_size(0, 5)


@pytest.mark.parametrize("has_bias", [True, False])
def test_one_sample_is_multiplied_by_the_weights_as_they_are(has_bias: bool) -> None:
    def holds(layer: Block, x: Tensor) -> None:
        for _ in range(4):  # from the third on the call is ready
            with torch.no_grad():
                close(layer(x), torch.nn.functional.linear(x, layer.to_dense(), layer.own("bias")))

    layer = of_size(4, 8)(normal(0, 12, 16), torch.ones(12, 16, dtype=torch.bool), normal(1, 12) if has_bias else None)
    x, mask = normal(2, 1, 16), torch.ones(12, 16, dtype=torch.bool)
    holds(layer, x)
    holds(layer, normal(3, 16, 2).t()[:1])  # whose numbers do not lie side by side
    with torch.no_grad():
        layer.values.mul_(2)
    holds(layer, x)
    layer.values.data = layer.values.data.clone()
    holds(layer, x)
    mask[4:8] = False
    layer.set_mask(mask)
    holds(layer, x)
    holds(copy.deepcopy(layer), x)
    holds(of_size(4, 8)(normal(0, 11, 16), mask[:11]), x)  # blocks stand over the edge
    with torch.no_grad():
        close(layer(torch._neg_view(x)), layer(-x))
        layer.values.data = layer.values.data.transpose(1, 2).contiguous().transpose(1, 2)
        holds(layer, x)
        layer.values.data = layer.values.data.contiguous()
        torch.nn.utils.prune.random_unstructured(layer, "values", 0.5)
        for _ in range(4):
            close(layer(x), torch.nn.functional.linear(x, layer.unpack(layer.own("values")), layer.own("bias")))
    assert layer(x).requires_grad
