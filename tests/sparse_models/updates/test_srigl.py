"""SRigL: RigL within constant fan-in, in which neurons that hardly matter lose all their weights."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sparse_models.errors import InputError
from sparse_models.layers import LAYERS
from sparse_models.layers.fan_in import FanIn
from sparse_models.masks import FAN_IN, UNSTRUCTURED, count_kept
from sparse_models.models import MLP
from sparse_models.training import optimizer_for
from sparse_models.updates import UPDATES, update_masks
from tests.helpers.gpu.simulated_gpu import pretend_gpu
from tests.strategies import coarse, fractions, generator, mask_for, masks_of, normal, seeds, sizes

SRIGL = UPDATES["srigl"]


@st.composite
def drawn(draw: st.DrawFn, tied: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """A mask of constant fan-in of which some rows may be ablated, with the weights and the gradient of a layer."""
    mask, seed = draw(masks_of("fan_in", (draw(sizes), draw(sizes)))), draw(seeds)
    numbers = coarse if tied else normal
    weight, grad = numbers(seed, *mask.shape), numbers(seed + 1, *mask.shape)
    scale = torch.rand(len(mask), 1, generator=generator(seed + 2), dtype=torch.float64) ** 8  # neurons that hardly matter
    scale_of_ablated = torch.where(mask.any(1, keepdim=True), scale, 1e6)  # whose gradients are nothing to the others
    return mask, weight * mask * scale, grad * scale_of_ablated


def defined(mask: Tensor, weight: Tensor, grad: Tensor, fraction: float) -> Tensor:
    """Return the next mask by the steps that the paper lists, of numbers of which no two are the same."""
    kept = {(row, column) for row, column in mask.nonzero().tolist()}
    if not kept:
        return mask
    active = {row for row, _ in kept}
    by_weight = sorted(kept, key=lambda at: -abs(float(weight[at])))
    surviving = set(by_weight[: count_kept(len(kept), fraction)])
    free = [(row, column) for row in active for column in range(mask.shape[1]) if (row, column) not in surviving]
    by_grad = sorted(free, key=lambda at: -abs(float(grad[at])))
    salient = surviving | set(by_grad[: len(kept) - len(surviving)])
    fan_in = len(kept) // len(active)
    active = {row for row in active if sum(at[0] == row for at in salient) >= 0.3 * fan_in}
    target = min(mask.shape[1], round(len(kept) / len(active)))
    result = torch.zeros_like(mask)
    for row in active:
        own = [at for at in surviving if at[0] == row]
        for at in own + [at for at in by_grad if at[0] == row][: target - len(own)]:
            result[at] = True
    return result


@given(drawn(), fractions)
def test_it_does_what_the_paper_lists(problem: tuple[Tensor, Tensor, Tensor], fraction: float) -> None:
    assert torch.equal(SRIGL(*problem, fraction, pattern=FAN_IN), defined(*problem, fraction))


@given(drawn(tied=True) | drawn(), fractions)
def test_active_rows_share_one_fan_in_and_none_comes_back(problem: tuple[Tensor, Tensor, Tensor], fraction: float) -> None:
    mask = problem[0]
    moved = SRIGL(*problem, fraction, pattern=FAN_IN)
    before, after = mask.sum(1), moved.sum(1)
    assert FAN_IN.accepts(moved)
    assert not after[before == 0].any()
    active = int((after > 0).sum())
    full = bool((after == mask.shape[1]).any())
    assert full or 2 * abs(int(mask.sum()) - int(after.sum())) <= active
    assert bool((after[after > 0] >= before.max()).all())
    if int((before > 0).sum()) == active:
        assert torch.equal(before, after)


@given(drawn(tied=True))
def test_a_drop_fraction_of_0_moves_nothing(problem: tuple[Tensor, Tensor, Tensor]) -> None:
    assert torch.equal(SRIGL(*problem, 0.0, pattern=FAN_IN), problem[0])


@pytest.mark.parametrize("in_place", [False, True])
def test_an_ablated_neuron_hands_its_weights_on_and_the_others_keep_value_and_optimizer_state(in_place: bool) -> None:
    mask = mask_for("fan_in", (4, 16), 0.75)  # 4 of 16
    weight, grad = normal(1, 4, 16), normal(2, 4, 16)
    weight[0] /= 1e3
    grad[0] /= 1e3
    layer = FanIn(weight, mask, normal(3, 4))
    optimizer = optimizer_for("adam", layer.parameters(), 1e-3)
    layer(normal(4, 5, 16)).sum().backward()
    optimizer.step()
    before = {"weight": layer.to_dense(), "mean": layer.unpack(optimizer.state[layer.values]["exp_avg"])}

    def update() -> None:
        update_masks([layer], SRIGL, 0.3, optimizer=optimizer, gradients={layer: grad}, in_place=in_place)

    if in_place:  # there is no room for another number
        with pytest.raises(InputError, match="expected a mask of 16 weights to move to in place, got one of 15"):
            update()
        return
    update()
    assert layer.mask.sum(1).tolist() == [0, 5, 5, 5]  # 16 / 3, to the nearest whole number
    assert layer.nnz_as_set == layer.nnz == 15
    after = {"weight": layer.to_dense(), "mean": layer.unpack(optimizer.state[layer.values]["exp_avg"])}
    both = mask & layer.mask
    assert int(both.sum()) >= 8
    for name, dense in before.items():
        assert torch.equal(after[name], torch.where(both, dense, 0.0)), name
    x = normal(5, 3, 16)
    torch.testing.assert_close(layer(x), torch.nn.functional.linear(x, layer.to_dense(), layer.bias))
    for _ in range(3):
        update()
        assert layer.mask.sum(1).tolist() == [0, 5, 5, 5]


def test_other_patterns_are_refused_and_not_offered() -> None:
    mask = torch.eye(3, dtype=torch.bool)
    with pytest.raises(InputError, match="srigl: expected masks of pattern 'fan-in', got 'unstructured'; take another rule"):
        SRIGL(mask, torch.eye(3), torch.ones(3, 3), 0.3)
    assert [name for name, layer in LAYERS.items() if SRIGL.fits(layer.pattern)] == ["fan_in"]
    assert UPDATES["static"].fits(UNSTRUCTURED)


def test_a_captured_graph_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = MLP([FanIn(normal(0, 4, 6), mask_for("fan_in", (4, 6), 0.5))])
    pretend_gpu(monkeypatch, captured=True)
    with pytest.raises(InputError, match="srigl: expected no CUDA graph to be captured"):
        update_masks(model, SRIGL, 0.3, gradients={part: normal(1, 4, 6) for part in model})
