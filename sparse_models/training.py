"""The one training loop, the same for every arm, and the one search for a learning rate."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from sparse_models.data import Data, Split
from sparse_models.errors import InputError
from sparse_models.models import MLP
from sparse_models.registry import UPDATES
from sparse_models.updates import Update, dense_gradients, update_masks

# The fused implementations: on a CPU they make the dense step 1.3 to 1.8 times faster, so any other is a weak baseline.
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": partial(torch.optim.SGD, momentum=0.9, fused=True),
    "adam": partial(torch.optim.Adam, fused=True),
    "adamw": partial(torch.optim.AdamW, fused=True),
}


class Settings(NamedTuple):
    """What all arms of a comparison share, and the learning rate."""

    epochs: int
    batch: int
    learning_rate: float
    optimizer: str = "adam"
    update_interval: int = 0  # steps between mask updates; 0 = once an epoch


def training_step(model: nn.Module, inputs: Tensor, labels: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
    """Take one optimizer step on a batch and return its cross-entropy before the step, still on the device."""
    optimizer.zero_grad()
    loss = functional.cross_entropy(model(inputs), labels)
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    optimizer.step()
    return loss.detach()


def train(
    model: MLP, data: Split, settings: Settings, seed: int, update: Update | None = None
) -> Iterator[Tensor]:
    """Train `model` in place, yielding after each epoch the losses of its steps [steps].

    `seed` alone decides the order of the samples, so that every arm sees the same batches in the same order. A mask
    update comes after the optimizer step whose gradient it uses; every arm takes the same number of steps.
    """
    check_settings(settings)
    update = UPDATES["static"] if update is None else update
    optimizer = OPTIMIZERS[settings.optimizer](model.parameters(), lr=settings.learning_rate)
    order, choice = (torch.Generator().manual_seed(seed + offset) for offset in (0, 1))
    fractions = drop_fractions(len(data.labels), settings, update)
    for _ in range(settings.epochs):
        losses = []
        samples = torch.randperm(len(data.labels), generator=order).to(data.labels.device)
        for batch in samples.split(settings.batch):
            fraction = next(fractions)
            watched = list(model) if fraction > 0 and update.needs_gradient else []
            with dense_gradients(watched) if watched else nullcontext({}) as gradients:
                losses.append(training_step(model, data.inputs[batch], data.labels[batch], optimizer))
            if fraction > 0:
                update_masks(model, update, fraction, optimizer, gradients, choice)
        yield torch.stack(losses)


def drop_fractions(samples: int, settings: Settings, update: Update) -> Iterator[float]:
    """Yield for every step of a training the fraction of weights that `update` moves after it, 0 between updates."""
    steps_an_epoch = -(-samples // settings.batch)
    total = steps_an_epoch * settings.epochs
    interval = settings.update_interval or steps_an_epoch
    for step in range(1, total + 1):
        yield update.drop_fraction(step / total) if step % interval == 0 and step < total else 0.0


def check_settings(settings: Settings) -> None:
    """Raise InputError for settings that no training can use."""
    if settings.optimizer not in OPTIMIZERS:
        raise InputError(f"expected an optimizer ({', '.join(OPTIMIZERS)}), got {settings.optimizer!r}; check the spelling")
    if settings.epochs < 1 or settings.batch < 1 or settings.update_interval < 0 or not settings.learning_rate > 0:
        raise InputError(f"expected at least 1 epoch, a batch of at least 1 and a learning rate above 0, got {settings}")


class Quality(NamedTuple):
    """Mean cross-entropy and the fraction of samples classified correctly."""

    loss: float
    accuracy: float


@torch.no_grad()
def evaluate(model: nn.Module, data: Split) -> Quality:
    """Return loss and accuracy of `model` on `data`."""
    outputs = model(data.inputs)
    accuracy = (outputs.argmax(1) == data.labels).double().mean()
    return Quality(float(functional.cross_entropy(outputs, data.labels)), float(accuracy))


class Search(NamedTuple):
    """A search's choice and its cost: the number of trainings and their seconds."""

    learning_rate: float
    trainings: int
    seconds: float


def search_learning_rate(
    build: Callable[[], MLP], data: Data, settings: Settings, rates: Sequence[float], seed: int, update: Update | None = None
) -> Search:
    """Train once with each of `rates` and return the one of highest validation accuracy, the lower loss deciding ties."""
    start = time.perf_counter()
    scores = []
    for rate in rates:
        model = build()
        for _ in train(model, data.train, settings._replace(learning_rate=rate), seed, update):
            pass
        quality = evaluate(model, data.validation)
        scores.append((quality.accuracy, -quality.loss, rate))
    return Search(max(scores)[2], len(scores), time.perf_counter() - start)
