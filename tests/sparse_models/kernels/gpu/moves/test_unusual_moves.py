"""What comes seldom to a mask update on a GPU, on a card and in the emulator: other dtypes and strides, near numbers."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sparse_models.kernels.cpu.moves.numbers import define_numbers, drawn_keys
from sparse_models.layers import LAYERS
from sparse_models.layers._feature_major.both_ways import CsrBothWays
from sparse_models.updates import UPDATES, update_masks
from sparse_models.updates._by_kernels import on_gpu
from tests.helpers.gpu.on_a_card import device
from tests.sparse_models.kernels.gpu.test_cuda_layer import _kernels_of_a_gpu
from tests.sparse_models.kernels.gpu.test_cuda_moves import KINDS, Arm, _cut, by_pytorch, drawn, grown_of, same
from tests.strategies import generator, normal

__all__ = ["_cut", "_kernels_of_a_gpu", "device"]  # fixtures
pytestmark = pytest.mark.usefixtures("poisoned")
F32, BF16 = torch.float32, torch.bfloat16
STRIDES: dict[str, Callable[[Tensor], Tensor]] = {
    "turned": lambda grad: grad.t().contiguous().t(),
    "repeated": lambda grad: grad[:, :1].expand_as(grad),
    "negated": torch._neg_view,
    "learned": lambda grad: grad.requires_grad_(),
}


@pytest.mark.parametrize(("values", "scored"), [(BF16, F32), (F32, BF16)])
@pytest.mark.parametrize("strides", STRIDES)
def test_gradients_may_be_of_another_dtype_and_in_any_strides(
    device: str, values: torch.dtype, scored: torch.dtype, strides: str
) -> None:
    arm, twin = drawn(device, dtype=values)
    grads = [STRIDES[strides](normal(5, *layer.mask.shape, dtype=scored).to(device)) for layer in arm.layers]
    before = [grad.detach().clone() for grad in grads]
    arm.update("rigl", 0.3, grads, None, in_place=True)
    by_pytorch(twin, "rigl", 0.3, before, None)
    same(arm.content(), twin.content())
    same(grads, [grad.cpu() for grad in before])


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("rule", ["rigl", "set"])
def test_layers_of_several_kinds_and_dtypes_are_moved_in_one_update(device: str, rule: str, in_place: bool) -> None:
    shapes = [(40, 70), (8, 40), (33, 1), (1, 70)]
    weights = [normal(seed, *shape, dtype=dtype) for seed, (shape, (_, dtype)) in enumerate(zip(shapes, KINDS, strict=True))]
    masks = [torch.rand(shape, generator=generator(9)) < 0.3 for shape in shapes]
    masks[1][3] = True  # a row of all weights, and one of none
    masks[1][4] = False
    names = [kind for kind, _ in KINDS]
    arm, twin = (
        Arm([LAYERS[name](one.to(on), mask.to(on)) for name, one, mask in zip(names, given, masks, strict=True)])
        for on, given in ((device, weights), ("cpu", [one.float() for one in weights]))
    )
    for one, other in zip(arm.content(), twin.content(), strict=True):
        other.copy_(one)
    grads = grown_of(arm.layers, 3)
    arm.update(rule, 0.3, [one.to(device) for one in grads], generator(1), in_place=in_place)
    by_pytorch(twin, rule, 0.3, grads, generator(1))
    same(arm.content(), twin.content())
    if device == "cpu":  # on a card no layer holds where pieces of columns start
        for layer, expecting in zip(arm.layers, twin.layers, strict=True):
            held, expected = dict(layer.named_buffers()), dict(expecting.named_buffers())
            assert held.keys() == expected.keys()
            same(list(held.values()), list(expected.values()))


@pytest.mark.parametrize(
    ("stored", "in_place"),
    [(torch.Tensor.float, False), (torch.Tensor.float, True), (lambda slot: torch._neg_view(-slot), False)],
    ids=["in float32", "in float32, in place", "negated"],
)
def test_optimizer_state_that_is_stored_otherwise_than_the_values_moves_with_them(
    device: str, stored: Callable[[Tensor], Tensor], in_place: bool
) -> None:
    arm, twin = drawn(device, dtype=BF16)
    for layer in arm.layers:
        state = arm.optimizer.state[layer.values]
        state["exp_avg"] = stored(state["exp_avg"])
    dtype = state["exp_avg"].dtype
    grads = grown_of(arm.layers, 3)
    arm.update("rigl", 0.3, [one.to(device) for one in grads], None, in_place=in_place)
    by_pytorch(twin, "rigl", 0.3, grads, None)
    same(arm.content(), twin.content())
    assert all(arm.optimizer.state[layer.values]["exp_avg"].dtype == dtype for layer in arm.layers)


def test_random_numbers_are_told_apart_to_their_last_bit(device: str) -> None:
    size = 40 * 70
    for seed in range(10_000):
        numbers = define_numbers(drawn_keys(generator(seed)), torch.arange(size))
        found, places = numbers.sort(descending=True)
        near = (found[:-1] - 1 == found[1:]) & (found[1:] % 2 == 0) & (places[:-1] > places[1:])
        if near.any():  # two that differ in that bit alone, of which the later is the higher
            break
    count = int(near.nonzero()[0]) + 1
    mask = (torch.arange(size) < count).view(40, 70)
    layer = LAYERS["tiled"](normal(0, 40, 70, dtype=F32).to(device), mask.to(device))
    update_masks([layer], UPDATES["set"], 1.0, generator=generator(seed))
    assert sorted(places[:count].tolist()) == layer.mask.cpu().flatten().nonzero().flatten().tolist()


@pytest.mark.parametrize("in_place", [False, True])
def test_masks_move_in_inference_mode(device: str, in_place: bool) -> None:
    arm, twin = drawn(device)
    grads = grown_of(arm.layers, 3)
    with torch.inference_mode():
        arm.update("rigl", 0.3, [one.to(device) for one in grads], None, in_place=in_place)
    by_pytorch(twin, "rigl", 0.3, grads, None)
    same(arm.content(), twin.content())


@pytest.mark.parametrize("in_place", [False, True])
def test_an_index_that_kernels_wrote_is_not_looked_at_again(
    device: str, in_place: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    arm, _ = drawn(device)
    arm.update("set", 0.3, grown_of(arm.layers, 3), None, in_place=in_place)
    monkeypatch.setattr(CsrBothWays, "_fits", lambda _: pytest.fail("the device is asked"))
    for layer in arm.layers:
        layer.train()


def test_numbers_that_a_host_draws_are_held_by_no_graph(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arm, _ = drawn(device)
    monkeypatch.setattr(on_gpu, "is_captured", lambda _: True)
    grads = dict(zip(arm.layers, grown_of(arm.layers, 3), strict=True))
    assert not on_gpu.moved_on_gpu(arm.layers, UPDATES["set"], 0.3, arm.optimizer, grads, generator(0), in_place=True)
