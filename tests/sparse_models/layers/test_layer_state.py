"""The state of a layer, saved, loaded, copied, and moved to another mask."""

import copy
import pickle

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sparse_models.errors import InputError
from sparse_models.layers import SparseLinear
from sparse_models.layers._feature_major.both_ways import CsrBothWays
from sparse_models.registry import LAYERS
from tests.sparse_models.layers.test_layers import build
from tests.strategies import SPARSE_LAYERS, mask_for, masks_of, normal, of_each_kind, problems, seeds, widest


@pytest.mark.parametrize("layer", of_each_kind(SPARSE_LAYERS))
@given(st.data())
def test_a_mask_of_any_other_number_can_be_set(layer: str, data: st.DataObject) -> None:
    problem = data.draw(problems(layer))
    mask = data.draw(masks_of(layer, problem.mask.shape))
    built = build(layer, problem)
    built.set_mask(mask)
    assert torch.equal(built.to_dense(), problem.weight * problem.mask * mask)
    assert torch.equal(built.mask, mask)
    torch.testing.assert_close(
        built(problem.x), build(layer, problem._replace(weight=problem.weight * problem.mask, mask=mask))(problem.x)
    )


@pytest.mark.parametrize("layer", of_each_kind(LAYERS))
@given(st.data(), seeds)
def test_state_dict_round_trip(layer: str, data: st.DataObject, seed: int) -> None:
    problem = data.draw(problems(layer))
    saved = build(layer, problem)
    other = problem._replace(
        weight=normal(seed, *problem.weight.shape, dtype=widest(layer)),
        mask=data.draw(masks_of(layer, problem.mask.shape)),
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


@pytest.mark.parametrize("layer", of_each_kind(LAYERS))
@given(st.data())
def test_a_deep_copy_is_independent(layer: str, data: st.DataObject) -> None:
    problem = data.draw(problems(layer))
    built = build(layer, problem)
    copied = copy.deepcopy(built)
    with torch.no_grad():
        copied.values.add_(1)
    assert torch.equal(built.to_dense(), problem.weight * problem.mask)


@pytest.mark.parametrize("layer", of_each_kind(SPARSE_LAYERS))
@given(st.data())
def test_state_of_another_number_of_non_zeros_can_be_loaded(layer: str, data: st.DataObject) -> None:
    problem = data.draw(problems(layer))
    saved = build(layer, problem)
    loaded = build(layer, problem._replace(mask=data.draw(masks_of(layer, problem.mask.shape))))
    loaded.load_state_dict(saved.state_dict())
    assert torch.equal(loaded.to_dense(), saved.to_dense())
    torch.testing.assert_close(loaded(problem.x), saved(problem.x))


@pytest.mark.parametrize("layer", of_each_kind(SPARSE_LAYERS))
def test_a_call_with_the_state_of_another_layer_computes_by_its_index(layer: str) -> None:
    shape, dtype = (512, 784), widest(layer)  # so large that kernels go through it by panels of columns
    own, other = (
        LAYERS[layer](normal(seed, *shape, dtype=dtype), mask_for(layer, shape, 0.75, seed), normal(seed + 2, 512, dtype=dtype))
        for seed in (0, 1)
    )
    x, grad, found = normal(4, 128, 784, dtype=dtype), normal(5, 128, 512, dtype=dtype), list[torch.Tensor]()
    for layer_called, state in ((other, other), (own, other), (own, own)):
        inputs = x.clone().requires_grad_()
        output = functional_call(layer_called, state.state_dict(), (inputs,)) if state is not layer_called else state(inputs)
        found += [output.detach(), torch.autograd.grad(output, inputs, grad)[0]]
    torch.testing.assert_close(found[2:4], found[:2])
    torch.testing.assert_close(found[4:], [nn.functional.linear(x, own.to_dense(), own.bias), grad @ own.to_dense()])


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


@pytest.mark.parametrize("layer", of_each_kind(SPARSE_LAYERS))
@given(st.data(), seeds)
def test_a_mask_may_move_between_forward_and_backward(layer: str, data: st.DataObject, seed: int) -> None:
    problem = data.draw(problems(layer))
    kept, moved = (build(layer, problem) for _ in range(2))
    x, y = (problem.x.clone().requires_grad_() for _ in range(2))
    before, after = kept(x), moved(y)
    mask = mask_for(layer, problem.mask.shape, LAYERS[layer].pattern.sparsity_of(problem.mask), seed)
    assume(mask.sum() == problem.mask.sum())  # whole neurons may not come to as many: no gradient fits another number
    moved.set_mask(mask)
    before.backward(problem.output_grad)
    after.backward(problem.output_grad)
    torch.testing.assert_close(x.grad, y.grad)


def test_removed_neurons_may_move_between_forward_and_backward_of_feature_major_input() -> None:
    weight, bias, x = (normal(seed, *shape, dtype=widest("compact")) for seed, shape in enumerate([(4, 2), (4,), (3, 2)]))
    x = x.t().contiguous().t().requires_grad_()
    before, after = (torch.tensor(rows).bool()[:, None].expand(4, 2) for rows in ([0, 1, 1, 1], [1, 1, 1, 0]))
    layer = LAYERS["compact"](weight, before, bias)
    output = layer(x)
    layer.set_mask(after)
    output.sum().backward()
    torch.testing.assert_close(x.grad, (weight * before).sum(0).expand(3, 2))


@pytest.mark.parametrize("layer", of_each_kind(SPARSE_LAYERS))
def test_moving_the_mask_drops_the_gradient_of_the_old_structure(layer: str) -> None:
    built = LAYERS[layer](normal(0, 4, 5, dtype=widest(layer)), mask_for(layer, (4, 5), 0.5))
    built(normal(1, 3, 5, dtype=widest(layer))).sum().backward()
    built.set_mask(mask_for(layer, (4, 5), 0.5, 1))
    assert built.values.grad is None


@pytest.mark.parametrize("layer", of_each_kind(SPARSE_LAYERS))
def test_a_loaded_state_drops_the_gradient_of_weights_elsewhere_and_keeps_that_of_the_same(layer: str) -> None:
    weight, x = normal(0, 256, 256, dtype=widest(layer)), normal(1, 3, 256, dtype=widest(layer))
    built, here, there = (LAYERS[layer](weight, mask_for(layer, (256, 256), 0.5, seed)) for seed in (0, 0, 1))
    assert not torch.equal(here.mask, there.mask)
    built(x).sum().backward()
    gradient = built.values.grad
    built.load_state_dict(here.state_dict())
    assert built.values.grad is gradient
    built.load_state_dict(there.state_dict())
    assert built.values.grad is None


@pytest.mark.parametrize("layer", [layer for layer in SPARSE_LAYERS if issubclass(LAYERS[layer], CsrBothWays)])
def test_an_average_of_indices_is_refused_and_one_of_weights_is_not(layer: str) -> None:
    """Of numbers of which 0.9 and 0.1 are added up in float32, some are less than they were, and rounded down."""
    built = LAYERS[layer](normal(0, 640, 300, dtype=widest(layer)), mask_for(layer, (640, 300), 0.5))
    for use_buffers in (False, True):
        average = AveragedModel(built, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=use_buffers)
        for _ in range(9):
            average.update_parameters(built)
        if use_buffers:
            assert not torch.equal(average.module.get_buffer("transposition"), built.get_buffer("transposition"))
            with pytest.raises(InputError, match="expected the index of its weights, got other numbers in its place; "):
                average.eval()
            average.module.load_state_dict(built.state_dict())
        average.eval()
        assert isinstance(average.module, SparseLinear)
        torch.testing.assert_close(average.module.to_dense(), built.to_dense())


@pytest.mark.parametrize("layer", [layer for layer in SPARSE_LAYERS if issubclass(LAYERS[layer], CsrBothWays)])
def test_a_mode_is_set_before_a_state_is_loaded_into_memory_that_is_prepared_for_it(layer: str) -> None:
    """As where a large model is put together: what stands in the memory by then is no index."""
    built = LAYERS[layer](normal(0, 256, 256, dtype=widest(layer)), mask_for(layer, (256, 256), 0.5))
    prepared = copy.deepcopy(built).train().to("meta").to_empty(device="cpu")
    for one in prepared.buffers():
        one.data.fill_(-1)
    prepared.eval().load_state_dict(built.state_dict())
    torch.testing.assert_close(prepared.train().to_dense(), built.to_dense())
    wrong = {name: one.roll(1) if name == "transposition" else one for name, one in built.state_dict().items()}
    for assign in (False, True):
        prepared.load_state_dict(wrong, assign=assign)
        with pytest.raises(InputError, match="expected the index of its weights, got other numbers in its place; "):
            prepared.eval()


@pytest.mark.parametrize("layer", of_each_kind(SPARSE_LAYERS))
def test_a_state_is_assigned_to_a_layer_that_is_nowhere(layer: str) -> None:
    weight = normal(0, 256, 256, dtype=widest(layer))
    here, there = (LAYERS[layer](weight, mask_for(layer, (256, 256), 0.5, seed)) for seed in (0, 1))
    here.to("meta").load_state_dict(there.state_dict(), assign=True)
    torch.testing.assert_close(here.train().to_dense(), there.to_dense())
    x = normal(1, 3, 256, dtype=widest(layer))
    torch.testing.assert_close(here(x), there(x))


def test_after_a_move_in_place_a_layer_holds_no_more_than_before() -> None:
    built = LAYERS["tiled"](normal(0, 64, 128), mask_for("tiled", (64, 128), 0.5))
    before = len(pickle.dumps(built))
    built.move(mask_for("tiled", (64, 128), 0.5, 1), in_place=True)
    assert len(pickle.dumps(built)) - before < 4096  # an index of as many weights takes 16 KiB


ANY_NUMBER = [layer for layer in of_each_kind(SPARSE_LAYERS) if LAYERS[layer].pattern.sparsities is None]


@pytest.mark.parametrize(
    ("layer", "is_loaded"), [*((layer, False) for layer in ANY_NUMBER), ("tiled", True), ("compact", True)]
)
def test_a_layer_of_another_number_of_weights_learns_while_the_loss_before_is_kept(layer: str, *, is_loaded: bool) -> None:
    weight, x = normal(0, 32, 32, dtype=widest(layer)), normal(1, 3, 32, dtype=widest(layer))
    many, few = (mask_for(layer, (32, 32), sparsity) for sparsity in (0.25, 0.75))
    built, expected = LAYERS[layer](weight, many), LAYERS[layer](weight * many, few)
    loss = built(x).square().sum()
    loss.backward()
    if is_loaded:
        built.load_state_dict(expected.state_dict())
    else:
        built.set_mask(few)
    for one in (built, expected):
        one.zero_grad(set_to_none=False)  # which leaves a gradient in its shape
        one(x).square().sum().backward()
    torch.testing.assert_close(built.values.grad, expected.values.grad)


@pytest.mark.parametrize("layer", of_each_kind(SPARSE_LAYERS))
def test_a_mask_can_be_set_after_the_dtype_was_changed(layer: str) -> None:
    weight, bias = (normal(seed, *shape, dtype=widest(layer)) for seed, shape in enumerate([(4, 5), (4,)]))
    built = LAYERS[layer](weight, mask_for(layer, (4, 5), 0.5), bias).float()
    built.set_mask(mask_for(layer, (4, 5), 0.5, 1))
    assert built.values.dtype == torch.float32
    assert built(normal(1, 3, 5, dtype=torch.float32)).dtype == torch.float32
