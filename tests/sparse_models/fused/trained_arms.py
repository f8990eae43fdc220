"""A model that is trained by fused steps or by the plain loop, and what may happen to it between two steps."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sparse_models.models import MLP, draw
from sparse_models.training import FusedStep, optimizer_for, training_step
from sparse_models.updates import move_mask
from tests.strategies import generator, mask_for, mlp_of, normal

SIZES, BATCH, RATE = (12, 16, 8, 4), 40, 0.01


class Arm:
    """A model that is trained, by fused steps or by the plain loop."""

    def __init__(self, *, fused: bool, optimizer: str = "adam", layer: str = "tiled") -> None:
        self.model = mlp_of(layer, draw(SIZES, generator(0)), 0.5)
        self.optimizer = optimizer_for(optimizer, self.model.parameters(), RATE)
        self.step = FusedStep(self.model, self.optimizer)
        self.fused = fused
        self.went: list[bool] = []

    def train(self, steps: int, batch: int = BATCH) -> list[float]:
        return [float(self.once(*samples(self.model, number, batch))) for number in range(steps)]

    def once(self, x: Tensor, labels: Tensor) -> Tensor:
        if not self.fused:
            return training_step(self.model, x, labels, self.optimizer)
        loss = self.step.at_once(x, labels)
        self.went.append(loss is not None)
        return self.step(x, labels) if loss is None else loss


def samples(model: MLP, seed: int, batch: int = BATCH) -> tuple[Tensor, Tensor]:
    x = normal(seed, batch, SIZES[0], dtype=next(model.parameters()).dtype)
    return x, torch.randint(SIZES[-1], (batch,), generator=generator(seed))


def arms(**options: Any) -> tuple[Arm, Arm]:
    return Arm(fused=True, **options), Arm(fused=False, **options)


def same(fused: Arm, plain: Arm) -> None:
    """All that the two hold: parameters, optimizer's state, and the next loss."""
    within = 1e-9 if next(plain.model.parameters()).dtype == torch.float64 else 1e-5
    torch.testing.assert_close(fused.model.state_dict(), plain.model.state_dict(), rtol=within, atol=within)
    states = [[arm.optimizer.state[parameter] for parameter in arm.model.parameters()] for arm in (fused, plain)]
    torch.testing.assert_close(states[0], states[1], rtol=within, atol=within)


def moved(arm: Arm, *, with_state: bool = True, in_place: bool = False) -> None:
    for number, layer in enumerate(arm.model):
        mask = mask_for("tiled", layer.mask.shape, 0.5, seed=100 + number)
        move_mask(layer, mask, arm.optimizer, in_place=in_place) if with_state else layer.set_mask(mask)


def of_other_number(arm: Arm) -> None:
    first = next(iter(arm.model))
    move_mask(first, mask_for("tiled", first.mask.shape, 0.9, seed=7), arm.optimizer)


def changed_in_place(arm: Arm) -> None:
    with torch.no_grad():
        for parameter in arm.model.parameters():
            parameter.mul_(0.5)


def changed_unseen(arm: Arm) -> None:
    """As PyTorch's fused optimizers change values: no count of changes tells."""
    for parameter in arm.model.parameters():
        parameter.data.mul_(0.5)


def given_other_data(arm: Arm) -> None:
    for parameter in arm.model.parameters():
        parameter.data = parameter.data * 0.5


def given_other_parameter(arm: Arm) -> None:
    """One that the optimizer does not know, so that it stays as it is."""
    first = next(iter(arm.model))
    first.values = torch.nn.Parameter(first.values.detach().clone())


def given_parameter_in_the_same_place(arm: Arm) -> None:
    first = next(iter(arm.model))
    first.values = torch.nn.Parameter(first.values.detach())


def rate_changed(arm: Arm) -> None:
    scheduler = torch.optim.lr_scheduler.StepLR(arm.optimizer, 1, gamma=0.1)
    arm.train(1)
    scheduler.step()


def betas_changed(arm: Arm) -> None:
    for group in arm.optimizer.param_groups:
        if "betas" in group:
            group["betas"] = (0.5, 0.6)


def decay_changed(arm: Arm) -> None:
    arm.optimizer.param_groups[0]["weight_decay"] = 0.1


def maximized(arm: Arm) -> None:
    arm.optimizer.param_groups[0]["maximize"] = True


def model_loaded(arm: Arm) -> None:
    arm.model.load_state_dict(mlp_of("tiled", draw(SIZES, generator(9)), 0.7, 9).state_dict())
    for layer in arm.model:  # the optimizer's state is of another number of weights
        arm.optimizer.state.pop(layer.values, None)


def optimizer_loaded(arm: Arm) -> None:
    arm.optimizer.load_state_dict(copy.deepcopy(arm.optimizer.state_dict()))


def state_cleared(arm: Arm) -> None:
    arm.optimizer.state.clear()


def group_added(arm: Arm) -> None:
    arm.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(3))], "lr": 1.0})


def group_split(arm: Arm) -> None:
    [group] = arm.optimizer.param_groups
    last = group["params"].pop()
    arm.optimizer.add_param_group({"params": [last], "lr": 3 * RATE})


def regrouped(arm: Arm) -> None:
    group_split(arm)
    arm.train(2)
    first, second = arm.optimizer.param_groups
    first["params"][-1:], second["params"] = second["params"], first["params"][-1:]


def converted(arm: Arm) -> None:
    arm.model.float()
    optimizer_loaded(arm)  # which converts the state as the parameters are


def threads_changed(arm: Arm) -> None:
    torch.set_num_threads(3 if torch.get_num_threads() == 2 else 2)


def frozen(arm: Arm) -> None:
    next(arm.model.parameters()).requires_grad = False


def layer_replaced(arm: Arm) -> None:
    arm.model.layers[1] = mlp_of("csr", draw(SIZES[1:3], generator(4)), 0.5).layers[0]


def layer_hooked(arm: Arm) -> None:
    next(iter(arm.model)).register_forward_hook(lambda _, __, output: output * 2)


def gradient_hooked(arm: Arm) -> None:
    next(arm.model.parameters()).register_hook(lambda grad: grad * 2)


def accumulation_hooked(arm: Arm) -> None:
    def doubled(parameter: Tensor) -> None:
        parameter.grad = None if parameter.grad is None else parameter.grad * 2

    next(arm.model.parameters()).register_post_accumulate_grad_hook(doubled)


def optimizer_hooked(arm: Arm) -> None:
    arm.optimizer.register_step_post_hook(lambda *_: changed_in_place(arm))


def optimizer_replaced(arm: Arm) -> None:
    vars(arm.optimizer)["step"] = lambda: None


def plain_step(arm: Arm) -> None:
    training_step(arm.model, *samples(arm.model, 77), arm.optimizer)


def gradients_left(arm: Arm) -> None:
    arm.model.cross_entropy(*samples(arm.model, 78)).backward()


def smaller_batches(arm: Arm) -> None:
    for number, batch in enumerate([3, 17, 70, 129, 200, 3, 17]):
        arm.once(*samples(arm.model, number, batch))


def copied(arm: Arm) -> None:
    arm.step = copy.deepcopy(arm.step)
    arm.model, arm.optimizer = arm.step.model, arm.step.optimizer


def pickled(arm: Arm) -> None:
    arm.step = pickle.loads(pickle.dumps(arm.step))  # noqa: S301  # our own
    arm.model, arm.optimizer = arm.step.model, arm.step.optimizer


# What may happen between two steps, and whether the steps after it still go at once.
EVENTS: dict[Callable[[Arm], None], bool] = {
    moved: True,
    lambda arm: moved(arm, in_place=True): True,
    of_other_number: True,
    changed_in_place: True,
    changed_unseen: True,
    given_other_data: True,
    rate_changed: True,
    betas_changed: True,
    decay_changed: True,
    model_loaded: True,
    optimizer_loaded: True,
    state_cleared: True,
    group_split: True,
    regrouped: True,
    converted: True,
    threads_changed: True,
    plain_step: True,
    gradients_left: True,
    smaller_batches: True,
    copied: True,
    pickled: True,
    given_other_parameter: False,
    given_parameter_in_the_same_place: False,
    maximized: False,
    group_added: False,
    frozen: False,
    layer_replaced: False,
    layer_hooked: False,
    gradient_hooked: False,
    accumulation_hooked: False,
    optimizer_hooked: False,
    optimizer_replaced: False,
}

# Of these, what may happen to a layer of any kind in the middle of a training, and keeps its numbers exact.
KEPT = [changed_unseen, given_other_data, decay_changed, optimizer_loaded, plain_step, gradients_left, copied, pickled]
