"""Updates in place: what they leave is what updates give that build anew, and all that was held stays valid."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse_models.errors import InputError
from sparse_models.layers import SparseLinear
from sparse_models.models import MLP
from sparse_models.training import OPTIMIZERS, FusedStep, optimizer_for
from sparse_models.updates import UPDATES, Moves, dense_of, update_masks
from tests.strategies import drawn, generator, mlp_of, normal, seeds

SIZES, BATCH = (21, 70, 40, 4), 24
IN_PLACE = ["set", "rigl"]


def samples(seed: int) -> tuple[Tensor, Tensor]:
    return normal(seed, BATCH, SIZES[0]), torch.randint(SIZES[-1], (BATCH,), generator=generator(seed))


class Arm:
    """A model in training, whose masks move in place or not."""

    def __init__(self, layer: str, optimizer: str, seed: int, moves: Moves | None) -> None:
        self.model: MLP = mlp_of(layer, drawn(layer, SIZES, seed), 0.6, seed)
        self.optimizer = optimizer_for(optimizer, self.model.parameters(), 0.01)
        self.step, self.moves, self.numbers = FusedStep(self.model, self.optimizer), moves, generator(seed)
        self.losses = [float(self.step(*samples(number))) for number in (0, 1)]

    def update(self, rule: str, fraction: float, number: int) -> None:
        layers = list(self.model) if UPDATES[rule].needs_gradient else []
        loss, gradients = self.step.watching(layers, *samples(number))
        self.losses.append(float(loss))
        dense = gradients if self.moves else {layer: dense_of(gradient) for layer, gradient in gradients.items()}
        update_masks(
            self.model, UPDATES[rule], fraction,
            optimizer=self.optimizer, gradients=dense, generator=self.numbers, moves=self.moves,
        )  # fmt: skip

    def content(self) -> list[Tensor]:
        """All tensors: parameters, buffers, and optimizer state in their order."""
        state = [one for kept in self.optimizer.state.values() for one in kept.values() if isinstance(one, Tensor)]
        return [*self.model.parameters(), *self.model.buffers(), *state]


def same(one: Arm, other: Arm) -> None:
    assert one.losses == pytest.approx(other.losses, abs=1e-12)
    for found, expected in zip(one.content(), other.content(), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("rule", IN_PLACE)
@pytest.mark.parametrize("layer", ["tiled", "csr"])
@settings(max_examples=5)
@given(seeds, st.lists(st.sampled_from([0.1, 0.3, 1.0]), min_size=1, max_size=3))
def test_a_training_goes_on_as_when_all_is_built_anew(
    layer: str, rule: str, optimizer: str, seed: int, fractions: list[float]
) -> None:
    here, anew = (Arm(layer, optimizer, seed, moves) for moves in (Moves(), None))
    held, places = here.step._held, [tensor.data_ptr() for tensor in here.content()]
    for number, fraction in enumerate(fractions):
        for arm in (here, anew):
            arm.update(rule, fraction, number)
            arm.losses.append(float(arm.step(*samples(number + 9))))
        same(here, anew)
    assert [tensor.data_ptr() for tensor in here.content()] == places
    assert here.step._held is held
    assert (held is not None) == (layer == "tiled")


@pytest.mark.parametrize("rule", IN_PLACE)
def test_as_many_threads_as_there_are_do_the_same(rule: str) -> None:
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(Arm("tiled", "adam", 0, Moves()))
            found[-1].update(rule, 0.3, 0)
    finally:
        torch.set_num_threads(before)
    same(*found)


@pytest.mark.parametrize(("bad", "rule"), [("weight", "rigl"), ("gradient", "rigl"), ("weight", "set")])
def test_nan_is_refused_and_nothing_is_changed(bad: str, rule: str) -> None:
    arm = Arm("tiled", "adam", 0, Moves())
    last = list(arm.model)[-1]
    gradients = {layer: normal(1, *layer.mask.shape) for layer in arm.model}
    with torch.no_grad():
        (last.values if bad == "weight" else gradients[last][1])[3] = float("nan")
    before = copy.deepcopy(arm.content())
    with pytest.raises(InputError, match="expected scores without NaN"):
        update_masks(arm.model, UPDATES[rule], 0.3, optimizer=arm.optimizer, gradients=gradients, moves=arm.moves)
    for found, expected in zip(arm.content(), before, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


def test_a_state_dict_changes_as_by_an_optimizer_and_a_copy_does_not() -> None:
    arm = Arm("tiled", "adam", 0, Moves())
    seen, model = arm.model.state_dict(), copy.deepcopy(arm.model)
    masks = [layer.mask for layer in arm.model]
    arm.update("set", 0.3, 0)
    for key, tensor in arm.model.state_dict().items():
        assert seen[key].data_ptr() == tensor.data_ptr()
    assert all(torch.equal(layer.mask, mask) for layer, mask in zip(model, masks, strict=True))
    model.load_state_dict(seen)
    for layer, own in zip(model, arm.model, strict=True):
        assert torch.equal(layer.to_dense(), own.to_dense())
        torch.testing.assert_close(layer(normal(0, 3, layer.in_features)), own(normal(0, 3, layer.in_features)))


def test_a_graph_from_before_refuses_its_backward_pass_and_copies_for_few_samples_are_made_anew() -> None:
    arm = Arm("tiled", "adam", 0, Moves())
    x = normal(3, 1, SIZES[0])
    loss = arm.model(samples(0)[0]).sum()
    arm.model.eval()
    with torch.no_grad():
        arm.model(x)
    update_masks(arm.model, UPDATES["set"], 0.3, generator=generator(0), moves=arm.moves)
    with torch.no_grad():
        found = arm.model(x)
        for number, layer in enumerate(arm.model):
            x = torch.nn.functional.linear(torch.relu(x) if number else x, layer.to_dense(), layer.bias)
    torch.testing.assert_close(found, x)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_of_two_optimizers_the_one_that_is_given_follows() -> None:
    arm = Arm("tiled", "adam", 0, Moves())
    other = OPTIMIZERS["sgd"](arm.model.parameters(), lr=0.1)
    arm.model(samples(0)[0]).sum().backward()
    other.step()
    kept = [state["momentum_buffer"].clone() for state in other.state.values()]
    before = [arm.optimizer.state[layer.values]["exp_avg"].clone() for layer in arm.model]
    arm.update("set", 0.5, 0)
    assert all(torch.equal(one, state["momentum_buffer"]) for one, state in zip(kept, other.state.values(), strict=True))
    after = [arm.optimizer.state[layer.values]["exp_avg"] for layer in arm.model]
    assert not any(torch.equal(one, now) for one, now in zip(before, after, strict=True))


@pytest.mark.parametrize(("layer", "rule"), [("tiled", "mest"), ("masked", "set"), ("fan_in", "set"), ("block4", "rigl")])
def test_what_no_kernel_moves_is_left_as_it_is(layer: str, rule: str) -> None:
    arm = Arm(layer, "adam", 0, Moves())
    layers: list[SparseLinear] = list(arm.model)
    gradients = {one: normal(1, *one.mask.shape) for one in layers}
    before = copy.deepcopy(arm.content())
    assert not Moves().take(layers, UPDATES[rule], 0.3, arm.optimizer, gradients, None)
    assert all(torch.equal(found, expected) for found, expected in zip(arm.content(), before, strict=True))
