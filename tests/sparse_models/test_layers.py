import copy
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
from sparse_models.masks import random_mask
from sparse_models.registry import ABSENT, LAYERS, register_layer
from sparse_models.testing import Problem, gate
from tests.strategies import DEVICES, FLOAT64_LAYERS, SPARSE_LAYERS, generator, masks, normal, problems, seeds, widest


def build(layer: str, problem: Problem) -> SparseLinear:
    return LAYERS[layer](problem.weight, problem.mask, problem.bias)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("layer", "dtype"), [(layer, dtype) for layer in LAYERS for dtype in {torch.float32: 0, widest(layer): 0}], ids=str
)
@given(st.data())
def test_layer_passes_the_gate(layer: str, dtype: torch.dtype, device: str, data: st.DataObject) -> None:
    gate(LAYERS[layer], data.draw(problems(layer, dtype, device)))


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("batch", [1, 63, 100])
def test_layer_passes_the_gate_at_odd_sizes_that_fill_several_tiles(layer: str, batch: int) -> None:
    mask = random_mask((100, 63), 0.0 if layer == "dense" else 0.9, generator(0))
    numbers = [
        normal(seed, *shape, dtype=torch.float32) for seed, shape in enumerate([(100, 63), (100,), (batch, 63), (batch, 100)])
    ]
    gate(LAYERS[layer], Problem(numbers[0], mask, numbers[1], numbers[2], numbers[3]))


@pytest.mark.parametrize("layer", [name for name, layer in LAYERS.items() if "bfloat16" in layer.dtypes])
@given(st.data())
def test_layer_passes_the_gate_in_bfloat16(layer: str, data: st.DataObject) -> None:
    gate(LAYERS[layer], data.draw(problems(layer, torch.bfloat16)))


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


@pytest.mark.parametrize("layer", SPARSE_LAYERS)
@given(st.data(), seeds)
def test_a_mask_of_any_other_number_can_be_set(layer: str, data: st.DataObject, seed: int) -> None:
    problem = data.draw(problems(layer))
    mask = data.draw(masks(tuple(problem.mask.shape)))
    built = build(layer, problem)
    built.set_mask(mask)
    assert torch.equal(built.to_dense(), problem.weight * problem.mask * mask)
    assert torch.equal(built.mask, mask)
    torch.testing.assert_close(built(problem.x), build(layer, problem._replace(mask=problem.mask & mask))(problem.x))


@pytest.mark.parametrize("layer", LAYERS)
@given(st.data(), seeds)
def test_state_dict_round_trip(layer: str, data: st.DataObject, seed: int) -> None:
    problem = data.draw(problems(layer))
    saved = build(layer, problem)
    order = torch.randperm(problem.mask.numel(), generator=generator(seed))
    other = problem._replace(
        weight=normal(seed, *problem.weight.shape, dtype=widest(layer)),
        mask=problem.mask.flatten()[order].reshape(problem.mask.shape),
    )
    loaded = build(layer, other)
    loaded.load_state_dict(saved.state_dict())
    assert torch.equal(loaded.to_dense(), saved.to_dense())
    x, y = (problem.x.clone().requires_grad_() for _ in range(2))
    torch.testing.assert_close(loaded(x), saved(y))
    loaded(x).backward(problem.output_grad)
    saved(y).backward(problem.output_grad)
    torch.testing.assert_close(x.grad, y.grad)
    torch.testing.assert_close(loaded.values.grad, saved.values.grad)


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

    assert torch.autograd.gradcheck(run, (problem.x.requires_grad_(), *tensors))


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


@pytest.mark.parametrize("layer", LAYERS)
@given(st.data())
def test_a_deep_copy_is_independent(layer: str, data: st.DataObject) -> None:
    problem = data.draw(problems(layer))
    built = build(layer, problem)
    copied = copy.deepcopy(built)
    with torch.no_grad():
        copied.values.add_(1)
    assert torch.equal(built.to_dense(), problem.weight * problem.mask)


@pytest.mark.parametrize("layer", [name for name, layer in LAYERS.items() if layer.layout == "feature-major"])
def test_a_chain_of_feature_major_layers_never_transposes(layer: str) -> None:
    weight, bias, x = (normal(seed, *shape, dtype=widest(layer)) for seed, shape in enumerate([(5, 7), (5,), (3, 7)]))
    built = LAYERS[layer](weight, random_mask((5, 7), 0.5, generator(0)), bias)
    assert torch.relu(built(x)).t().is_contiguous()


@pytest.mark.parametrize("layer", SPARSE_LAYERS)
@given(st.data(), seeds)
def test_state_of_another_number_of_non_zeros_can_be_loaded(layer: str, data: st.DataObject, seed: int) -> None:
    problem = data.draw(problems(layer))
    saved = build(layer, problem)
    loaded = build(layer, problem._replace(mask=data.draw(masks(problem.mask.shape))))
    loaded.load_state_dict(saved.state_dict())
    assert torch.equal(loaded.to_dense(), saved.to_dense())
    torch.testing.assert_close(loaded(problem.x), saved(problem.x))


@pytest.mark.parametrize("layer", ["csr", "csr_linear"])
@pytest.mark.parametrize("shape", [(4, 3), (3, 4), (5, 5)])
def test_state_of_another_shape_is_refused_and_changes_nothing(layer: str, shape: tuple[int, int]) -> None:
    built, other = (LAYERS[layer](torch.ones(size), torch.ones(size, dtype=torch.bool)) for size in ((4, 4), shape))
    before = built.to_dense()
    if shape[0] == 4:
        LAYERS[layer](torch.ones(4, 4), torch.ones(4, 4, dtype=torch.bool))
        built, other = other, built  # more columns than the layer has
        before = built.to_dense()
    with pytest.raises(InputError, match="expected the saved state of a weight of shape"):
        built.load_state_dict(other.state_dict())
    assert torch.equal(built.to_dense(), before)


@pytest.mark.parametrize("layer", SPARSE_LAYERS)
@given(st.data(), seeds)
def test_a_mask_may_move_between_forward_and_backward(layer: str, data: st.DataObject, seed: int) -> None:
    problem = data.draw(problems(layer))
    kept, moved = (build(layer, problem) for _ in range(2))
    x, y = (problem.x.clone().requires_grad_() for _ in range(2))
    before, after = kept(x), moved(y)
    order = torch.randperm(problem.mask.numel(), generator=generator(seed))
    moved.set_mask(problem.mask.flatten()[order].reshape(problem.mask.shape))
    before.backward(problem.output_grad)
    after.backward(problem.output_grad)
    torch.testing.assert_close(x.grad, y.grad)


@pytest.mark.parametrize("layer", SPARSE_LAYERS)
def test_moving_the_mask_drops_the_gradient_of_the_old_structure(layer: str) -> None:
    built = LAYERS[layer](normal(0, 4, 5, dtype=widest(layer)), random_mask((4, 5), 0.5, generator(0)))
    built(normal(1, 3, 5, dtype=widest(layer))).sum().backward()
    built.set_mask(random_mask((4, 5), 0.5, generator(1)))
    assert built.values.grad is None


@pytest.mark.parametrize("layer", SPARSE_LAYERS)
def test_a_mask_can_be_set_after_the_dtype_was_changed(layer: str) -> None:
    weight, bias = (normal(seed, *shape, dtype=widest(layer)) for seed, shape in enumerate([(4, 5), (4,)]))
    built = LAYERS[layer](weight, random_mask((4, 5), 0.5, generator(0)), bias).float()
    built.set_mask(random_mask((4, 5), 0.5, generator(1)))
    assert built.values.dtype == torch.float32
    assert built(normal(1, 3, 5, dtype=torch.float32)).dtype == torch.float32


@pytest.mark.parametrize("layer", LAYERS)
def test_values_do_not_take_over_the_strides_of_the_weight(layer: str) -> None:
    assert LAYERS[layer](torch.ones(3, 2).t(), torch.ones(2, 3, dtype=torch.bool)).values.is_contiguous()


@pytest.mark.parametrize("layer", LAYERS)
def test_a_mask_of_another_shape_is_refused(layer: str) -> None:
    with pytest.raises(InputError, match=r"expected a bool mask of shape \[2, 3\].* got torch.bool of shape \[3, 2\]"):
        LAYERS[layer](torch.ones(2, 3), torch.ones(3, 2, dtype=torch.bool))


@pytest.mark.parametrize("layer", LAYERS)
def test_a_mask_that_is_not_bool_is_refused(layer: str) -> None:
    with pytest.raises(InputError, match=r"expected a bool mask .* got torch.float32"):
        LAYERS[layer](torch.ones(2, 3), torch.ones(2, 3))


@pytest.mark.parametrize("layer", LAYERS)
def test_nan_weights_are_refused(layer: str) -> None:
    with pytest.raises(InputError, match="expected weights without NaN, got NaN; "):
        LAYERS[layer](torch.full((2, 3), math.nan), torch.ones(2, 3, dtype=torch.bool))


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (3,), (1, 2, 3)])
def test_a_weight_that_is_no_matrix_is_refused(layer: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"expected a weight of shape \[out, in\], both at least 1, got "):
        LAYERS[layer](torch.ones(shape), torch.ones(shape, dtype=torch.bool))


@pytest.mark.parametrize("layer", LAYERS)
def test_a_bias_of_another_length_is_refused(layer: str) -> None:
    with pytest.raises(InputError, match=r"expected a bias of shape \[2\], torch.float32 on cpu, got \[3\]"):
        LAYERS[layer](torch.ones(2, 3), torch.ones(2, 3, dtype=torch.bool), torch.ones(3))


@pytest.mark.parametrize("layer", LAYERS)
def test_a_dtype_the_layer_does_not_run_is_refused(layer: str) -> None:
    with pytest.raises(InputError, match="got int64 on cpu; convert the weight"):
        LAYERS[layer](torch.ones(2, 3, dtype=torch.int64), torch.ones(2, 3, dtype=torch.bool))


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("shape", [(4, 2), (3,), (1, 4, 3)])
def test_an_input_of_another_shape_is_refused(layer: str, shape: tuple[int, ...]) -> None:
    built = LAYERS[layer](torch.ones(2, 3), torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(InputError, match=r"expected an input of shape \[batch, 3\], got "):
        built(torch.ones(shape))


def test_a_full_layer_refuses_a_sparse_mask() -> None:
    with pytest.raises(InputError, match="expected a mask of pattern 'full'"):
        LAYERS["dense"](torch.ones(1, 2), torch.tensor([[True, False]]))


def test_a_name_can_be_taken_only_once() -> None:
    with pytest.raises(InputError, match="expected a new name, got 'dense'"):
        register_layer("dense")(LAYERS["masked"])


def test_every_file_of_the_package_registers_a_layer_or_says_what_to_install() -> None:
    files = {module.name for module in pkgutil.iter_modules(layers.__path__) if not module.name.startswith("_")}
    registered = {layer.__module__.rpartition(".")[2] for layer in LAYERS.values()}
    assert registered | set(ABSENT) == files
    assert not registered & set(ABSENT)
