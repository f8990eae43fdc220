"""Masks moved by the kernels of a GPU, on a card and in the emulator: what they leave is what PyTorch's operations leave."""

import copy
from collections.abc import Callable, Iterable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse_models.errors import InputError
from sparse_models.kernels.cpu.moves.numbers import define_numbers
from sparse_models.kernels.cuda.moves import moving
from sparse_models.layers import LAYERS, SparseLinear
from sparse_models.updates import UPDATES, prune_and_regrow, update_masks
from sparse_models.updates._by_kernels import on_gpu
from tests.helpers.gpu.on_a_card import device
from tests.helpers.gpu.simulated_gpu import no_host_sync, pretend_gpu
from tests.sparse_models.kernels.gpu.test_cuda_layer import _kernels_of_a_gpu
from tests.strategies import coarse, generator, normal, seeds, sparsities

__all__ = ["_kernels_of_a_gpu", "device"]  # fixtures
pytestmark = pytest.mark.usefixtures("poisoned")
KINDS = [("tiled", torch.float32), ("tiled", torch.float16), ("tiled", torch.bfloat16), ("csr", torch.float32)]
SLOTS: dict[str, Callable[[Iterable[Tensor]], torch.optim.Optimizer]] = {
    "sgd": lambda values: torch.optim.SGD(values, lr=0.1),  # 0, 1, 2 and 3 slots
    "momentum": lambda values: torch.optim.SGD(values, lr=0.1, momentum=0.9),
    "adam": lambda values: torch.optim.Adam(values, lr=0.1),
    "amsgrad": lambda values: torch.optim.Adam(values, lr=0.1, amsgrad=True),
}


@pytest.fixture(autouse=True, params=["one block", "many blocks"])
def _cut(request: pytest.FixtureRequest, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have small layers cut into chunks as large ones are."""
    if request.param == "many blocks":
        monkeypatch.setattr(moving, "SMALL", 0)
        monkeypatch.setattr(moving, "CHUNK", 5)
    if device == "cpu":
        monkeypatch.setattr(moving, "on_a_gpu", lambda _: True)
        monkeypatch.setattr(moving, "THREADS", 64)


class Arm:
    """Layers with optimizer state and gradients."""

    def __init__(self, layers: list[SparseLinear], slots: str = "adam") -> None:
        self.layers = layers
        for layer in layers:
            layer.values.grad = torch.ones_like(layer.values)
        self.optimizer = SLOTS[slots]([layer.values for layer in layers])
        self.optimizer.step()
        for number, layer in enumerate(layers):
            for seed, slot in enumerate(self.slots(layer)):
                slot.copy_(normal(10 * number + seed, layer.values.numel()))

    def slots(self, layer: SparseLinear) -> list[Tensor]:
        state = self.optimizer.state[layer.values].values()
        return [one for one in state if isinstance(one, Tensor) and one.shape == layer.values.shape]

    def content(self) -> list[Tensor]:
        found = list[Tensor]()
        for layer in self.layers:
            index = [one for name, one in layer.named_buffers() if "starts" not in name]
            found += [layer.values.detach(), *self.slots(layer), *index]
        return found

    def update(
        self, rule: str, fraction: float, grads: list[Tensor], numbers: torch.Generator | None, *, in_place: bool = False
    ) -> None:
        gradients = dict(zip(self.layers, grads, strict=True))
        update_masks(
            self.layers, UPDATES[rule], fraction, optimizer=self.optimizer, gradients=gradients, generator=numbers,
            in_place=in_place,
        )  # fmt: skip


def twins(kind: str, weights: list[Tensor], masks: list[Tensor], on: str, slots: str = "adam") -> tuple[Arm, Arm]:
    """Layers on a device, and on a CPU the same in float32, in which sums of them would be others, but no order is."""
    arm = Arm([LAYERS[kind](one.to(on), mask.to(on)) for one, mask in zip(weights, masks, strict=True)], slots)
    twin = Arm([LAYERS[kind](one.float(), mask) for one, mask in zip(weights, masks, strict=True)], slots)
    for one, other in zip(arm.content(), twin.content(), strict=True):
        other.copy_(one)
    return arm, twin


def by_pytorch(arm: Arm, rule: str, fraction: float, grads: list[Tensor], numbers: torch.Generator | None) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moving, "on_a_gpu", lambda _: False)
        arm.update(rule, fraction, [grad.cpu().float() for grad in grads], numbers)


def same(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.cpu(), other.to(one.dtype))


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("rule", ["rigl", "set"])
@pytest.mark.parametrize(("kind", "dtype"), KINDS)
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.tuples(st.integers(1, 75), st.integers(1, 75)), sparsities, seeds, st.booleans(), st.sampled_from([0.1, 0.3, 1.0]))
def test_an_update_leaves_what_pytorchs_leaves(
    device: str, kind: str, dtype: torch.dtype, rule: str, in_place: bool, shape: tuple[int, int], sparsity: float, seed: int,
    tied: bool, fraction: float,
) -> None:  # fmt: skip
    mask = torch.rand(shape, generator=generator(seed)) >= sparsity
    weight, grad = ((coarse if tied else normal)(seed // 2 + one, *shape).to(dtype) for one in (1, 2))
    grad[-1] = 0  # of a unit that is
    slots = list(SLOTS)[seed % len(SLOTS)]
    arm, twin = twins(kind, [weight], [mask], device, slots)
    places = [one.data_ptr() for one in arm.content()]
    arm.update(rule, fraction, [grad.to(device)], generator(seed), in_place=in_place)
    by_pytorch(twin, rule, fraction, [grad], generator(seed))
    same(arm.content(), twin.content())
    moved = [one.data_ptr() != place for one, place in zip(arm.content(), places, strict=True) if one.numel()]
    assert not any(moved) if in_place else all(moved)
    grads = [layer.values.grad for layer in arm.layers]
    assert all(not one.any() for one in grads if one is not None)
    assert (grads == [None]) == (not in_place)


def grown_of(layers: list[SparseLinear], seed: int) -> list[Tensor]:
    return [normal(seed + number, *layer.mask.shape, dtype=layer.values.dtype) for number, layer in enumerate(layers)]


def drawn(on: str, kind: str = "tiled", dtype: torch.dtype = torch.float32) -> tuple[Arm, Arm]:
    shapes = [(40, 70), (8, 40), (3, 8)]
    weights = [normal(seed, *shape, dtype=dtype) for seed, shape in enumerate(shapes)]
    return twins(kind, weights, [torch.rand(shape, generator=generator(9)) < 0.3 for shape in shapes], on)


def test_wide_layers_have_wide_indices_and_rows_of_many_words(device: str) -> None:
    shape = 3, 2**15 + 70
    mask = torch.rand(shape, generator=generator(1)) < 0.02
    arm, twin = twins("tiled", [normal(2, *shape, dtype=torch.float32)], [mask], device)
    assert {one.dtype for one in arm.content()} == {torch.float32, torch.int16, torch.int32}
    grads = grown_of(twin.layers, 3)
    arm.update("rigl", 0.4, [grad.to(device) for grad in grads], None, in_place=True)
    by_pytorch(twin, "rigl", 0.4, grads, None)
    same(arm.content(), twin.content())


def test_several_layers_are_moved_again_and_again(device: str) -> None:
    arm, twin = drawn(device)
    for number, in_place in enumerate((True, False, True)):
        for rule in ("rigl", "set"):
            grads = grown_of(twin.layers, number)
            arm.update(rule, 0.3, [one.to(device) for one in grads], generator(number), in_place=in_place)
            by_pytorch(twin, rule, 0.3, grads, generator(number))
            same(arm.content(), twin.content())
    assert all(layer.train().eval() is layer for layer in arm.layers)  # which looks whether the index is one


def test_random_numbers_are_those_of_keys_that_the_devices_generator_draws(device: str) -> None:
    arm, twin = drawn(device)
    places = torch.cuda if device == "cuda" else torch
    places.manual_seed(7)
    arm.update("set", 0.3, grown_of(arm.layers, 0), None, in_place=True)
    places.manual_seed(7)
    drawn_keys = torch.randint(-(2**31), 2**31, (3, 2), dtype=torch.int32, device=device).tolist()
    for layer, other, (one, two) in zip(arm.layers, twin.layers, drawn_keys, strict=True):
        numbers = define_numbers((one % 2**32, two % 2**32), torch.arange(other.mask.numel())).view(other.mask.shape)
        expected = prune_and_regrow(other.mask, other.to_dense().abs(), numbers, 0.3)
        assert torch.equal(layer.mask.cpu(), expected)


@pytest.mark.parametrize("bad", ["weight", "gradient", "gradient of a survivor"])
def test_nan_is_refused_before_anything_is_changed(device: str, bad: str) -> None:
    arm, _ = drawn(device)
    grads, last = [one.to(device) for one in grown_of(arm.layers, 3)], arm.layers[1]
    with torch.no_grad():
        if bad == "weight":
            last.values[3] = torch.nan
        else:
            row, column = (~last.mask if bad == "gradient" else last.mask).nonzero()[-1].tolist()
            last.values[-1] = 100  # which survives
            grads[1][row, column] = -torch.nan
    before = copy.deepcopy(arm.content())
    with pytest.raises(InputError, match="expected scores without NaN"):
        arm.update("rigl", 0.3, grads, None, in_place=True)
    for one, other in zip(arm.content(), before, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


def test_while_a_graph_is_captured_nothing_is_asked_and_nan_is_the_highest(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device == "cuda":
        pytest.skip("captured in simulation")
    arm, _ = drawn(device)
    arm = Arm(arm.layers[2:])  # of one piece of columns
    [layer], places = arm.layers, [one.data_ptr() for one in arm.content()]
    grads = [torch.arange(24.0).view(3, 8)]
    (row, column), *_, last = (~layer.mask).nonzero().tolist()
    grads[0][row, column] = torch.nan
    grads[0].view(torch.int32)[tuple(last)] = 0x7FFFFFFF  # another NaN, which is no higher
    pretend_gpu(monkeypatch, captured=True)
    with no_host_sync():
        arm.update("rigl", 1 / layer.values.numel(), grads, None)
    assert bool(layer.mask[row, column])
    assert not layer.mask[tuple(last)]
    assert places == [one.data_ptr() for one in arm.content()]


def test_a_graph_of_autograd_from_before_is_refused_in_place_and_goes_on_where_all_is_new(device: str) -> None:
    for in_place in (True, False):
        arm, _ = drawn(device)
        x = normal(0, 40, 70, dtype=torch.float32).to(device)
        loss = arm.layers[0](x).sum()
        arm.update("set", 0.3, grown_of(arm.layers, 0), None, in_place=in_place)
        if in_place:
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                loss.backward()
        else:
            loss.backward()


def test_what_no_kernel_moves_is_left_to_pytorch(device: str) -> None:
    arm, _ = drawn(device)
    grads = dict(zip(arm.layers, (one.to(device) for one in grown_of(arm.layers, 0)), strict=True))
    before = copy.deepcopy(arm.content())

    def moved(**changed: object) -> bool:
        known = {
            "layers": arm.layers, "update": UPDATES["rigl"], "drop_fraction": 0.3, "optimizer": arm.optimizer,
            "gradients": grads, "generator": None, "in_place": True,
        }  # fmt: skip
        found: bool = on_gpu.moved_on_gpu(**known | changed)  # type: ignore[arg-type]
        return found

    assert not moved(layers=[])
    assert not moved(layers=[arm.layers[0]] * 2)
    other = torch.ones(2, 2, device=device)
    assert not moved(layers=[*arm.layers, LAYERS["masked"](other, other.bool())], update=UPDATES["set"])
    assert not moved(update=UPDATES["mest"])
    assert not moved(update=UPDATES["snfs"])
    assert not moved(drop_fraction=0.0)
    assert not moved(gradients=None)
    assert not moved(gradients={layer: grad.double() for layer, grad in grads.items()})
    assert not moved(gradients={layer: grad.flatten() for layer, grad in grads.items()})
    state = arm.optimizer.state[arm.layers[1].values]
    state["exp_avg"], kept = state["exp_avg"].double(), state["exp_avg"]
    assert not moved()
    state["exp_avg"] = kept
    with torch.inference_mode():
        arm.layers[0].register_buffer("rows", arm.layers[0].get_buffer("rows").clone())
    assert not moved()
    same(arm.content(), [one.cpu() for one in before])
