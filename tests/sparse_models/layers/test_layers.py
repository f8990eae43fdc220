import math
import pkgutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import functional_call

from sparse_models import layers
from sparse_models.errors import InputError
from sparse_models.layers import SparseLinear
from sparse_models.layers._feature_major import csr_storage
from sparse_models.registry import ABSENT, LAYERS, register_layer
from sparse_models.testing import Problem, gate
from tests.strategies import FLOAT64_LAYERS, mask_for, normal, places, problems, widest


def build(layer: str, problem: Problem) -> SparseLinear:
    return LAYERS[layer](problem.weight, problem.mask, problem.bias)


@pytest.mark.parametrize(("layer", "device"), places(LAYERS))
@given(st.data())
def test_layer_passes_the_gate(layer: str, device: str, data: st.DataObject) -> None:
    able = [dtype for dtype in ("float32", "float64") if dtype in LAYERS[layer].dtypes_on(device)]
    dtype = getattr(torch, data.draw(st.sampled_from(able))) if able else widest(layer, device)
    gate(LAYERS[layer], data.draw(problems(layer, dtype, device)))


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("batch", [1, 63, 100])
def test_layer_passes_the_gate_at_odd_sizes_that_fill_several_tiles(layer: str, batch: int) -> None:
    mask = mask_for(layer, (100, 63), 0.9)
    numbers = [
        normal(seed, *shape, dtype=torch.float32) for seed, shape in enumerate([(100, 63), (100,), (batch, 63), (batch, 100)])
    ]
    gate(LAYERS[layer], Problem(numbers[0], mask, numbers[1], numbers[2], numbers[3]))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(("layer", "device"), places(LAYERS))
@settings(max_examples=12)
@given(st.data())
def test_layer_passes_the_gate_in_16_bit(layer: str, device: str, dtype: str, data: st.DataObject) -> None:
    if dtype not in LAYERS[layer].dtypes_on(device):
        pytest.skip(f"{layer} runs in {', '.join(LAYERS[layer].dtypes_on(device))} on {device}")
    gate(LAYERS[layer], data.draw(problems(layer, getattr(torch, dtype), device)))


@pytest.mark.parametrize("layer", LAYERS)
@given(st.data())
def test_layer_holds_exactly_the_masked_weights(layer: str, data: st.DataObject) -> None:
    problem = data.draw(problems(layer))
    built = build(layer, problem)
    assert torch.equal(built.to_dense(), problem.weight * problem.mask)
    assert torch.equal(built.mask, problem.mask)
    assert built.nnz == int(problem.mask.sum())


@pytest.mark.parametrize("layer", LAYERS)
@given(st.data())
def test_pack_and_unpack_are_inverses(layer: str, data: st.DataObject) -> None:
    built = build(layer, data.draw(problems(layer)))
    values = built.pack(normal(0, built.out_features, built.in_features, dtype=built.values.dtype))
    assert values.shape == built.values.shape
    assert torch.equal(built.pack(built.unpack(values)), values)


@pytest.mark.parametrize("layer", LAYERS)
@given(st.data())
def test_building_copies_what_it_is_built_from(layer: str, data: st.DataObject) -> None:
    problem = data.draw(problems(layer))
    built = build(layer, problem)
    before, mask = built.to_dense(), built.mask
    problem.weight.zero_()
    problem.mask.logical_not_()
    if problem.bias is not None:
        problem.bias.fill_(math.nan)
    assert torch.equal(built.to_dense(), before)
    assert torch.equal(built.mask, mask)
    assert not built(problem.x).isnan().any()


@pytest.mark.parametrize("layer", FLOAT64_LAYERS)
@settings(max_examples=15)
@given(st.data())
def test_gradients_pass_gradcheck(layer: str, data: st.DataObject) -> None:
    problem = data.draw(problems(layer))
    built = build(layer, problem)
    names = [name for name, _ in built.named_parameters()]
    tensors = [parameter.detach().clone().requires_grad_() for parameter in built.parameters()]

    def run(x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = functional_call(built, dict(zip(names, parameters, strict=True)), (x,))
        return result

    is_large = sum(tensor.numel() for tensor in tensors) > 1000  # where each element by itself takes seconds
    assert torch.autograd.gradcheck(run, (problem.x.requires_grad_(), *tensors), fast_mode=is_large)


@pytest.mark.parametrize("layer", LAYERS)
@given(st.data())
def test_only_the_gradients_asked_for_are_needed(layer: str, data: st.DataObject) -> None:
    problem = data.draw(problems(layer))
    built = build(layer, problem)
    built(problem.x).backward(problem.output_grad)  # the input asks for none
    assert built.values.grad is not None
    frozen = build(layer, problem).requires_grad_(False)
    x = problem.x.clone().requires_grad_()
    frozen(x).backward(problem.output_grad)
    assert x.grad is not None
    assert frozen.values.grad is None


@pytest.mark.parametrize("layer", [name for name, layer in LAYERS.items() if layer.layout == "feature-major"])
def test_a_chain_of_feature_major_layers_never_transposes(layer: str) -> None:
    weight, bias, x = (normal(seed, *shape, dtype=widest(layer)) for seed, shape in enumerate([(5, 7), (5,), (3, 7)]))
    built = LAYERS[layer](weight, mask_for(layer, (5, 7), 0.5), bias)
    assert torch.relu(built(x)).t().is_contiguous()


@pytest.mark.parametrize("layer", [name for name, layer in LAYERS.items() if layer.layout == "feature-major"])
@pytest.mark.parametrize("is_batch_major", [True, False])
def test_the_gradient_of_an_input_has_its_strides(layer: str, is_batch_major: bool) -> None:
    """What comes before reads two tensors in one order, as PyTorch's own layers have it; small and large."""
    for batch, inputs in ((3, 7), (64, 80)):
        x = normal(0, batch, inputs, dtype=widest(layer))
        x = (x if is_batch_major else x.t().contiguous().t()).requires_grad_()
        built = LAYERS[layer](normal(1, 5, inputs, dtype=x.dtype), mask_for(layer, (5, inputs), 0.5))
        for product in (built, built.traced_product):
            (given,) = torch.autograd.grad(product(x).square().sum(), x)
            assert given.stride() == x.stride()
            assert torch.allclose(given, 2 * built(x).detach() @ built.to_dense(), rtol=1e-3, atol=1e-4)


def test_indices_of_64_bit_are_kept_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csr_storage, "_integer", lambda *_: torch.int64)
    mask = mask_for("csr", (5, 7), 0.5)
    layer = LAYERS["csr"](normal(0, 5, 7), mask)
    assert layer.get_buffer("rows").tolist() == mask.t().nonzero()[:, 1].tolist()
    x = normal(1, 3, 7).requires_grad_()
    (given,) = torch.autograd.grad(layer(x).sum(), x)
    torch.testing.assert_close(given, layer.to_dense().sum(0).expand(3, 7))


@pytest.mark.parametrize("layer", LAYERS)
def test_values_do_not_take_over_the_strides_of_the_weight(layer: str) -> None:
    assert LAYERS[layer](torch.ones(3, 2).t(), mask_for(layer, (2, 3), 0.0)).values.is_contiguous()


def test_a_name_can_be_taken_only_once() -> None:
    with pytest.raises(InputError, match="expected a new name, got 'dense'"):
        register_layer("dense")(LAYERS["masked"])


def test_every_file_of_the_package_registers_a_layer_or_says_what_to_install() -> None:
    files = {module.name for module in pkgutil.iter_modules(layers.__path__) if not module.name.startswith("_")}
    registered = {layer.__module__.rpartition(".")[2] for layer in LAYERS.values()}
    assert registered | set(ABSENT) == files
    assert not registered & set(ABSENT)
