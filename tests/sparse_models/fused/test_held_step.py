"""A fused step and its optimizer are the plain loop in all but their time, whatever happens between the steps."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse_models.fused_step import MOST_BATCHES
from sparse_models.models import MLP, draw
from sparse_models.training import OPTIMIZERS, FusedStep, optimizer_for
from sparse_models.updates import move_mask
from tests.sparse_models.fused.trained_arms import BATCH, EVENTS, KEPT, RATE, SIZES, Arm, arms, same, samples
from tests.strategies import generator, mask_for, mlp_of, normal, seeds

pytestmark = pytest.mark.usefixtures("poisoned")


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__)
def test_whatever_happens_between_steps_they_are_those_of_the_plain_loop(event: Callable[[Arm], None]) -> None:
    both = arms()
    for arm in both:
        arm.train(3)
    assert both[0].went == [False, True, True]  # an optimizer's first step makes its state
    for arm in both:
        event(arm)
        arm.went.clear()
        arm.train(4)
    same(*both)
    assert both[0].went[-1] == EVENTS[event]


@settings(max_examples=10)
@given(
    st.sampled_from(sorted(OPTIMIZERS)),
    st.sampled_from(["tiled", "fan_in", "block4"]),
    st.lists(st.sampled_from(KEPT), max_size=3),
)
def test_a_hundred_steps_are_those_of_the_plain_loop(optimizer: str, layer: str, events: list[Callable[[Arm], None]]) -> None:
    both = arms(optimizer=optimizer, layer=layer)
    losses = [[*arm.train(30), *after(arm, layer, events)] for arm in both]
    torch.testing.assert_close(torch.tensor(losses[0]), torch.tensor(losses[1]), rtol=1e-9, atol=1e-9)
    same(*both)


def after(arm: Arm, layer: str, events: list[Callable[[Arm], None]]) -> list[float]:
    """The losses of seventy steps more, after the masks have moved and whatever else happens."""
    for number, each in enumerate(arm.model):
        move_mask(each, mask_for(layer, each.mask.shape, 0.5, seed=number + 50), arm.optimizer)
    losses = []
    for event in events:
        event(arm)
        losses += arm.train(10)
    return losses + arm.train(70 - 10 * len(events))


def unusual() -> dict[str, tuple[Tensor, Tensor]]:
    """Samples that go the plain way, which knows what to do with them."""
    x, labels = samples(Arm(fused=True).model, 0)
    return {
        "a label to be left out": (x, torch.where(labels == 0, -100, labels)),
        "shares of classes": (x, torch.nn.functional.one_hot(labels, SIZES[-1]).double()),
        "an input that asks for its gradient": (x.clone().requires_grad_(), labels),
        "a negated view": (torch._neg_view(x), labels),  # whose memory holds other numbers
    }


@pytest.mark.parametrize("kind", unusual())
def test_what_the_kernel_does_not_know_goes_the_plain_way(kind: str) -> None:
    both = arms()
    for arm in both:
        arm.train(2)
        arm.once(*unusual()[kind])
    assert both[0].went == [False, True, False]
    same(*both)


@pytest.mark.parametrize("kind", ["features", "dtype", "fewer labels", "a label too large", "without gradients"])
def test_what_the_plain_way_refuses_is_refused_and_changes_nothing(kind: str) -> None:
    arm, other = arms()
    for each in (arm, other):
        each.train(2)
    x, labels = samples(arm.model, 0)
    refused = {
        "features": (x[:, 1:], labels),
        "dtype": (x.float(), labels),
        "fewer labels": (x, labels[1:]),
        "a label too large": (x, labels + 2),
    }
    with torch.set_grad_enabled(kind != "without gradients"), pytest.raises((RuntimeError, ValueError, IndexError)):
        arm.step(*refused.get(kind, (x, labels)))
    same(arm, other)


def test_samples_of_any_strides_are_taken_at_once() -> None:
    both = arms()
    x, labels = samples(both[0].model, 0, 2 * BATCH)
    for arm in both:
        arm.train(1)
        arm.once(x.t().contiguous().t()[::2], labels[::2])
    assert both[0].went == [False, True]
    same(*both)


def test_a_step_leaves_no_gradients_and_is_counted() -> None:
    """So that a graph from before refuses its backward pass, and copies of the weights are made anew."""
    arm = Arm(fused=True)
    arm.train(2)
    loss = arm.model.cross_entropy(*samples(arm.model, 0), fused=False)
    before = [parameter._version for parameter in arm.model.parameters()]
    arm.train(1)
    assert arm.went[-1]
    assert all(parameter.grad is None for parameter in arm.model.parameters())
    assert [parameter._version for parameter in arm.model.parameters()] == [version + 1 for version in before]
    x = samples(arm.model, 1, 1)[0]
    with torch.no_grad():
        layer, one = next(iter(arm.model)).eval(), x[:1]
        first = layer(one)
        arm.train(0)
    arm.train(1)
    with torch.no_grad():
        assert not torch.equal(layer(one), first)
        torch.testing.assert_close(layer(one), torch.nn.functional.linear(one, layer.to_dense(), layer.bias))
    del loss


def test_a_scheduler_sees_that_the_optimizer_stepped(recwarn: pytest.WarningsRecorder) -> None:
    arm = Arm(fused=True)
    arm.train(2)
    scheduler = torch.optim.lr_scheduler.StepLR(arm.optimizer, 1)
    arm.train(1)
    assert arm.went[-1]
    scheduler.step()
    assert not recwarn.list


def test_no_more_than_a_few_sizes_of_batches_are_held() -> None:
    arm = Arm(fused=True)
    arm.train(1)
    for batch in range(1, 3 * MOST_BATCHES):
        arm.train(1, batch)
    assert arm.step._held is not None
    assert 0 < len(arm.step._held.by_batch) <= MOST_BATCHES


@given(seeds)
@settings(max_examples=10)
def test_layers_and_parameters_that_are_shared_go_the_plain_way(seed: int) -> None:
    def shared(*, fused: bool) -> Arm:
        arm = Arm(fused=fused)
        [layer] = mlp_of("tiled", draw((8, 8), generator(seed)), 0.5, seed)
        arm.model = MLP([layer, layer])
        arm.optimizer = optimizer_for("adam", arm.model.parameters(), RATE)
        arm.step = FusedStep(arm.model, arm.optimizer)
        return arm

    both = shared(fused=True), shared(fused=False)
    for arm in both:
        for number in range(3):
            arm.once(normal(number, BATCH, 8), torch.arange(BATCH) % 8)
    same(*both)
    assert not any(both[0].went)


def test_a_step_is_taken_by_as_many_threads_as_torch_has() -> None:
    arm = Arm(fused=True)
    for threads in (1, 2, 3, 1):
        torch.set_num_threads(threads)
        arm.train(2)
        assert arm.step._held is not None
        assert {ready.team for ready in arm.step._held.by_batch.values()} == {threads}
