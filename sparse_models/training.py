"""The one training loop, the same for every arm."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from sparse_models.checkpoints import Training, resume, save
from sparse_models.data import Split
from sparse_models.errors import DivergedError, InputError, checked, fits
from sparse_models.fused_step import HeldStep, hold, is_watched
from sparse_models.kernels.asynchronous import is_asynchronous
from sparse_models.layers import SparseLinear
from sparse_models.models import MLP
from sparse_models.mutation import Mutation, updates_due
from sparse_models.replays.steps import ReplayedSteps
from sparse_models.updates import UPDATES, Gradient, Update, dense_gradients

# The fused implementations: on a CPU they make the dense step 1.3 to 1.8 times faster, so any other is a weak baseline.
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": partial(torch.optim.SGD, momentum=0.9, fused=True),
    "adam": partial(torch.optim.Adam, fused=True),
    "adamw": partial(torch.optim.AdamW, fused=True),
}


def optimizer_for(name: str, parameters: Iterable[nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
    """Return an optimizer of OPTIMIZERS over `parameters`; on a GPU it is one whose step a CUDA graph can hold."""
    build, owned = OPTIMIZERS[name], list(parameters)
    options: dict[str, bool] = {}
    # SGD has no such option: it keeps no count of its steps that could stand on the host.
    if any(parameter.is_cuda for parameter in owned) and "capturable" in inspect.signature(build).parameters:
        options["capturable"] = True
    return build(owned, lr=learning_rate, **options)


# Added to a seed, so that its order of samples and its choice of grown weights come from numbers of their own.
ORDER_STREAM, CHOICE_STREAM = 2**32, 2**33


class Settings(NamedTuple):
    """What all arms of a comparison share, and the learning rate."""

    epochs: int
    batch: int
    learning_rate: float
    optimizer: str = "adam"
    update_interval: int = 100  # steps from one mask update to the next; RigL's default
    fused: bool = True  # whether layers that can do a whole step in one pass over the batch do so


def training_step(
    model: MLP,
    inputs: Tensor,
    labels: Tensor,
    optimizer: torch.optim.Optimizer,
    *,
    fused: bool = True,
    loss_of: Callable[..., Tensor] | None = None,
) -> Tensor:
    """Take one optimizer step on a batch and return its cross-entropy before the step, still on the device.

    `loss_of` is a compiled `model.cross_entropy` to be called in its place.
    """
    optimizer.zero_grad()
    loss = (loss_of or model.cross_entropy)(inputs, labels, fused=fused)
    loss.backward()
    optimizer.step()
    return loss.detach()


class FusedStep:
    """`training_step` for one model and one optimizer, in one call of a kernel wherever layers and optimizer have one.

    Forward, loss, backward and the optimizer's update are then one pass on the optimizer's own state, with the same losses and
    weights but for rounding, so that steps of either kind may follow one another. It goes the plain way for an optimizer's
    first step, other optimizers than Adam, AdamW and SGD with momentum, hooks, labels to be left out, a GPU, and whatever else
    is unusual. The fused way leaves no gradients behind, `grad` is None after it; to keep them goes the plain way.

    On a GPU, where `replayed`, the plain way is the replay of a CUDA graph from the third step on; `replays` tells why not.
    """

    def __init__(self, model: MLP, optimizer: torch.optim.Optimizer, *, fused: bool = True, replayed: bool = False) -> None:
        """Take steps of `optimizer` on `model`; without `fused` they go layer by layer."""
        self.model, self.optimizer, self.fused = model, optimizer, fused
        self._held: HeldStep | None = None
        self.plain = partial(training_step, model, optimizer=optimizer, fused=fused)
        self.replays = ReplayedSteps(model, optimizer, self.plain) if replayed else None

    def __call__(self, inputs: Tensor, labels: Tensor, *, keep_gradients: bool = False) -> Tensor:
        """Take one optimizer step on a batch and return its cross-entropy before the step, still on the device."""
        loss = self.at_once(inputs, labels) if self.fused and not keep_gradients else None
        if loss is None and self.replays is not None and not keep_gradients and not is_watched(self.model, self.optimizer):
            loss = self.replays.step(inputs, labels)
        return self.plain(inputs, labels) if loss is None else loss

    def watching(
        self, layers: Sequence[SparseLinear], inputs: Tensor, labels: Tensor, *, keep_gradients: bool = False
    ) -> tuple[Tensor, Mapping[SparseLinear, Gradient]]:
        """Do what a call does, and return beside the loss the gradient of every weight of some layers [out, in].

        In one call of a kernel it is what the gradients are products of, which holds until the next step.
        """
        if not layers:
            return self(inputs, labels, keep_gradients=keep_gradients), {}
        loss = self.at_once(inputs, labels, leaves=True) if self.fused and not keep_gradients else None
        if loss is not None:
            assert self._held is not None
            return loss, {layer: factors for layer, factors in self._held.factors.items() if layer in layers}
        with dense_gradients(layers) as gradients:
            return self(inputs, labels, keep_gradients=keep_gradients), gradients

    def at_once(self, inputs: Tensor, labels: Tensor, *, leaves: bool = False) -> Tensor | None:
        """Do what a call does in one call of a kernel, or nothing at all and return None."""
        held = self._held
        if held is None or not held.is_current(self.model, self.optimizer):
            held = None
            self.let_go()
            held = self._held = hold(self.model, self.optimizer, inputs)
        if held is None or not torch.is_grad_enabled() or is_watched(self.model, self.optimizer):
            return None
        return held.step(inputs, labels, leaves=leaves)

    def let_go(self) -> None:
        """Let go of what is held from one step to the next; where weights are to become fewer, it would not fit any more."""
        self._held = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_held": None}  # found again where needed


@checked
def train(
    model: MLP,
    data: Split,
    settings: Settings,
    seed: int,
    update: Update | None = None,
    *,
    checkpoint: Path | None = None,
    told: list[str] | None = None,
    beyond: int = 0,
) -> Iterator[Tensor]:
    """Train `model` in place, yielding after each epoch the losses of its steps [steps].

    `seed` alone decides the order of the samples, so that every arm sees the same batches in the same order, whatever the
    device; weights that are grown at random are drawn on the layers' device, and are others on a GPU than on a CPU. A mask
    update comes after the optimizer step whose gradient it uses; every arm takes the same number of steps. Raises
    DivergedError where a mask would be chosen by weights that are no longer numbers.

    With a `checkpoint` the training is written to that file after each epoch, and goes on from there where the file is: the
    losses of the epochs before are yielded again. Raises InputError for a file that is damaged or of another training.

    On a GPU a step is one launch, the replay of a CUDA graph, but for the first ones and those whose gradients a rule looks
    at. Where no graph can hold it, its kernels are launched one by one, and `told` is given the reason.

    After the epochs of the settings, by which schedules go, there are as many `beyond` for whoever asks for them, in which no
    mask moves any more.
    """
    check_settings(settings)
    update = UPDATES["static"] if update is None else update
    optimizer = optimizer_for(settings.optimizer, model.parameters(), settings.learning_rate)
    order = torch.Generator().manual_seed(seed + ORDER_STREAM)
    choice = torch.Generator(next(model.parameters()).device).manual_seed(seed + CHOICE_STREAM)
    due = updates_due(steps_of(len(data.labels), settings), settings.update_interval, update)
    on_a_gpu = is_asynchronous(next(model.parameters()))
    step = FusedStep(model, optimizer, fused=settings.fused, replayed=on_a_gpu)
    mutation = Mutation(model, update, due, optimizer, choice)
    arguments = f"{settings}, seed {seed}, {update.name}, {len(data.labels)} samples"
    training = Training(arguments, mutation, (order, choice), [])
    if checkpoint is not None and checkpoint.exists():
        resume(checkpoint, training)
    yield from training.losses
    for epoch in range(len(training.losses), settings.epochs + beyond):
        losses: list[Tensor] = []
        samples_in_order = torch.randperm(len(data.labels), generator=order, device=order.device)
        batches = samples_in_order.to(data.labels.device).split(settings.batch)
        for number, batch in enumerate(batches, epoch * len(batches)):
            samples = data.inputs[batch], data.labels[batch]
            if number >= len(due):
                losses.append(step(*samples))
                continue
            keeps = mutation.reads(number)
            loss, gradients = step.watching(mutation.watched(number), *samples, keep_gradients=keeps)
            losses.append(loss)
            if due[number] is not None and not losses[-1].isfinite():
                rate = settings.learning_rate
                raise DivergedError(f"expected a finite loss, got {float(loss)}; lower the learning rate {rate:g}")
            if due[number] is not None and update.resizes:
                step.let_go()
            mutation.follow(number, gradients)
        training.losses.append(torch.stack(losses))
        if told is not None and step.replays is not None and step.replays.why_not is not None:
            told[:] = [step.replays.why_not]
        if checkpoint is not None:
            save(checkpoint, training)
        yield training.losses[-1]


def steps_of(samples: int, settings: Settings) -> int:
    """Return the number of optimizer steps of a training on so many samples."""
    return -(-samples // settings.batch) * settings.epochs


def check_settings(settings: Settings) -> None:
    """Raise InputError for settings that no training can use."""
    if not isinstance(settings.optimizer, str) or settings.optimizer not in OPTIMIZERS:
        raise InputError(f"expected an optimizer ({', '.join(OPTIMIZERS)}), got {settings.optimizer!r}; check the spelling")
    is_whole = all(fits(getattr(settings, name), int) for name in ("epochs", "batch", "update_interval"))
    is_typed = is_whole and fits(settings.learning_rate, float)
    if not is_typed or min(settings.epochs, settings.batch, settings.update_interval) < 1 or not settings.learning_rate > 0:
        raise InputError(
            "expected whole epochs, batch and update interval of at least 1, and a learning rate above 0, "
            f"got {settings}; change them"
        )


class Quality(NamedTuple):
    """Mean cross-entropy and the fraction of samples classified correctly."""

    loss: float
    accuracy: float


@torch.no_grad()
@checked
def evaluate(model: nn.Module, data: Split) -> Quality:
    """Return loss and accuracy of `model` on `data`."""
    outputs = model(data.inputs)
    accuracy = (outputs.argmax(1) == data.labels).double().mean()
    return Quality(float(functional.cross_entropy(outputs, data.labels)), float(accuracy))
