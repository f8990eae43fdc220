import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from bench.grids import PARTS
from sparse_models.costs import counted_flops, counted_training_flops, executed_flops, size
from sparse_models.layers import LAYERS
from sparse_models.masks import UNSTRUCTURED
from sparse_models.models import dense_mlp, draw, sparse_mlp
from tests.strategies import SPARSE_LAYERS, drawn, generator, mlp_of, normal, seeds, sparsities

SIZES = (100, 256, 256, 10)
WEIGHTS = 100 * 256 + 256 * 256 + 256 * 10


@pytest.mark.parametrize("layer", SPARSE_LAYERS)
def test_effective_sparsity_of_80_percent_reads_80_percent(layer: str) -> None:
    total = size(mlp_of(layer, drawn(layer, SIZES, 0), 0.8, 1))
    assert total.weights == WEIGHTS
    pattern = LAYERS[layer].pattern
    if pattern is UNSTRUCTURED:
        assert total.nnz == 18739
    assert total.effective_sparsity == pytest.approx(pattern.nearest(0.8), abs=1e-4 if pattern is UNSTRUCTURED else 0.02)


@pytest.mark.parametrize("layer", SPARSE_LAYERS)
@given(seeds, sparsities)
def test_effective_sparsity_is_what_the_layers_really_hold(layer: str, seed: int, sparsity: float) -> None:
    layers = list(mlp_of(layer, drawn(layer, (9, 7, 5), seed), sparsity, seed))
    zeros = sum(int((part.to_dense() == 0).sum()) for part in layers)
    assert size(layers).effective_sparsity == pytest.approx(zeros / (9 * 7 + 7 * 5))


def test_parameters_of_the_seeds_dense_model() -> None:
    total = size(dense_mlp(draw(SIZES, generator(0))))
    assert (total.parameters, total.nnz, total.effective_sparsity) == (94218, WEIGHTS, 0)
    assert total.bytes_stored == 94218 * 8


def test_bytes_of_csr_by_hand() -> None:
    [layer] = sparse_mlp([(torch.ones(4, 6), torch.ones(4))], "csr", 0.5, generator(0))
    values, bias = 12 * 4, 4 * 4
    row_structure, column_structure, transposition = (5 + 12) * 4, (7 + 12) * 4, 12 * 4
    assert size([layer]).bytes_stored == values + bias + row_structure + column_structure + transposition


def test_bytes_of_masked_are_two_dense_weights() -> None:
    [layer] = sparse_mlp([(torch.ones(4, 6), torch.ones(4))], "masked", 0.5, generator(0))
    assert size([layer]).bytes_stored == (24 + 24 + 4) * 4


def test_100_by_256_is_51200_flops_a_sample() -> None:
    assert counted_flops(100 * 256, 1, "forward") == 51200
    assert counted_flops(100 * 256, 1, "backward") == 2 * 51200
    assert counted_flops(100 * 256, 1, "step") == 3 * 51200


def test_a_step_is_its_products() -> None:
    assert sum(counted_flops(100, 7, part) for part in PARTS) == counted_flops(100, 7, "step")
    for name in SPARSE_LAYERS:
        layers = list(mlp_of(name, drawn(name, (10, 8, 6), 0), 0.8, 1))
        parts = sum(executed_flops(layers, 5, part, input_gradient=False) for part in PARTS)
        assert parts == executed_flops(layers, 5, "step", input_gradient=False)


@pytest.mark.parametrize(("op", "grad"), [("forward", False), ("step", True)])
@pytest.mark.parametrize("layer", ["dense", "masked"])
@pytest.mark.parametrize("input_gradient", [False, True])
def test_executed_flops_of_dense_products_are_those_that_torch_counts(
    layer: str, op: str, grad: bool, input_gradient: bool
) -> None:
    layers = mlp_of(layer, draw((30, 20, 10), generator(0)), 0.5, 1)
    x = normal(0, 7, 30).requires_grad_(input_gradient)
    with FlopCounterMode(display=False) as counter:
        output = layers(x)
        if grad:
            output.sum().backward()
    assert executed_flops(list(layers), 7, op, input_gradient=input_gradient) == counter.get_total_flops()


@pytest.mark.parametrize("layer", SPARSE_LAYERS)
@given(st.data(), seeds, sparsities)
def test_no_layer_executes_less_than_is_counted(layer: str, data: st.DataObject, seed: int, sparsity: float) -> None:
    batch = data.draw(st.integers(1, 9))
    layers = list(mlp_of(layer, drawn(layer, (9, 7, 5), seed), sparsity, seed))
    for op in ("forward", "backward", "step"):
        high, wide = LAYERS[layer].pattern.unit  # of which all of those at the edges is computed
        whole = sum(-(-a // wide) * wide * -(-b // high) * high for a, b in ((9, 7), (7, 5)))
        counted, dense = (counted_flops(count, batch, op) for count in (size(layers).nnz, whole))
        assert counted <= executed_flops(layers, batch, op) <= dense


def test_executed_flops_by_layer() -> None:
    def executed(name: str, op: str) -> int:
        layers = list(sparse_mlp(draw((10, 10), generator(0)), name, 0.8, generator(1)))
        return executed_flops(layers, 1, op)

    assert [executed("masked", op) for op in ("forward", "backward", "step")] == [200, 400, 600]
    assert [executed("csr", op) for op in ("forward", "backward", "step")] == [40, 80, 120]
    assert [executed("csr_linear", op) for op in ("forward", "backward", "step")] == [40, 240, 280]


def test_training_flops_are_three_forward_passes_or_rigls_formula() -> None:
    sparse, dense = 2 * 20, 2 * 100
    assert counted_training_flops(20, 100, 7, 100, needs_gradient=False) == 7 * 3 * sparse
    assert counted_training_flops(20, 100, 7, 100, needs_gradient=True) == pytest.approx(
        7 * (3 * sparse * 100 + 2 * sparse + dense) / 101
    )


def test_every_layer_says_what_it_executes() -> None:
    for name, layer_class in LAYERS.items():
        layer = layer_class(torch.ones(3, 2), torch.ones(3, 2, dtype=torch.bool))
        assert all(count >= 6 for count in layer.multiply_adds), name
