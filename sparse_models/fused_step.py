"""A training step in one call of a kernel: what it must be given, and how it is seen that nothing of it has changed."""

import ctypes
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version
from torch.optim import optimizer as of_torch

from sparse_models.kernels.chain import leaving_step, ready_step
from sparse_models.kernels.cpu._team import threads
from sparse_models.kernels.cpu.chain._factors import Factors, Leaving
from sparse_models.kernels.cpu.chain._ready import Ready
from sparse_models.kernels.cpu.chain._update import Parameter
from sparse_models.kernels.cpu.chain.rules import RULES
from sparse_models.kernels.link import Link
from sparse_models.kernels.source import Held, are_same, tensors_of
from sparse_models.layers import SparseLinear
from sparse_models.linear import is_traced
from sparse_models.models import MLP

MOST_BATCHES = 4  # sizes of which a step is held: an epoch's last batch has fewer samples
COUNTS = {torch.float32: ctypes.c_float, torch.float64: ctypes.c_double}  # as what optimizers count their steps


def is_watched(model: MLP, optimizer: torch.optim.Optimizer) -> bool:
    """Tell whether a hook waits for a layer, for a gradient or for the optimizer's step, or another step takes its place."""
    hooks = (
        optimizer._optimizer_step_pre_hooks,  # noqa: SLF001  # PyTorch has no public names for them
        optimizer._optimizer_step_post_hooks,  # noqa: SLF001
        of_torch._global_optimizer_pre_hooks,  # noqa: SLF001
        of_torch._global_optimizer_post_hooks,  # noqa: SLF001
    )
    step = optimizer.__dict__.get("step")  # where a scheduler has wrapped it, it only notes that it was called
    replaced = step is not None and not hasattr(step, "_wrapped_by_lr_sched")
    return any(hooks) or replaced or "cross_entropy" in model.__dict__ or any(layer.is_watched for layer in model)


def has_hooks(parameter: Tensor) -> bool:
    """Tell whether a hook waits for a parameter's gradient."""
    return bool(parameter._backward_hooks or parameter._post_accumulate_grad_hooks)  # noqa: SLF001  # as those of optimizers


def hold(model: MLP, optimizer: torch.optim.Optimizer, x: Tensor) -> "HeldStep | None":
    """Return a step that is held for inputs like x [batch, in]; None where there is no kernel for it."""
    layers = list(model)
    if not layers or type(model).cross_entropy is not MLP.cross_entropy or type(optimizer) not in RULES or not x.is_cpu:
        return None
    links = layers[0].chain_for_step(layers, x)
    if links is None:
        return None
    try:
        return HeldStep(layers, links, optimizer)
    except LookupError:
        return None


class HeldStep:
    """A chain of layers and an optimizer whose step a kernel takes; nothing is held that is made from the values."""

    def __init__(self, layers: Sequence[SparseLinear], links: Sequence[Link], optimizer: torch.optim.Optimizer) -> None:
        """Hold layers, as a kernel takes them, and an optimizer of RULES over exactly their parameters.

        Raises LookupError where the optimizer is none that a kernel knows, or has not taken its first step.
        """
        self.layers, self.links, self.optimizer, self.rule = layers, links, optimizer, RULES[type(optimizer)]
        self.settings_of = itemgetter(*self.rule.settings, *self.rule.on, *self.rule.off)
        self.held, self.threads, self.by_batch = Held(tensors_of_step(layers, optimizer)), threads(), dict[int, Ready]()
        self.leaving: tuple[int, Leaving] | None = None
        self.settings = [self.settings_of(group) for group in optimizer.param_groups]
        if not all(self.rule.knows(group) for group in optimizer.param_groups):
            raise LookupError("settings that the kernel does not know")
        groups = {parameter: number for number, group in enumerate(optimizer.param_groups) for parameter in group["params"]}
        self.owned = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        own = [layer._parameters.get(name) for layer in layers for name in ("values", "bias")]  # noqa: SLF001
        self.trained = [parameter for parameter in own if parameter is not None]
        if len(self.owned) != len(self.trained) or set(map(id, self.owned)) != set(map(id, self.trained)):
            raise LookupError("other parameters than those of the layers")
        self.groups = [None if parameter is None else groups[parameter] for parameter in own]
        states = [None if parameter is None else optimizer.state[parameter] for parameter in own]
        self.parameters = [
            None if parameter is None or state is None else self._parameter(parameter, state)
            for parameter, state in zip(own, states, strict=True)
        ]
        self.counts = [None if state is None or self.rule.steps is None else _count(state[self.rule.steps]) for state in states]

    def _parameter(self, parameter: Tensor, state: Mapping[str, Any]) -> Parameter:
        moments = tuple(state[name] for name in self.rule.moments)
        for tensor in (parameter, *moments):
            like = isinstance(tensor, Tensor) and tensor.is_cpu and tensor.dtype == parameter.dtype and not tensor.is_neg()
            if not (like and tensor.shape == parameter.shape and tensor.is_contiguous() and not tensor.is_inference()):
                raise LookupError("a tensor that the kernel would misread")
        return Parameter(parameter.detach(), moments)

    def is_current(self, model: MLP, optimizer: torch.optim.Optimizer) -> bool:
        """Tell whether all layers, tensors and settings are those that are held, at their places in memory."""
        layers, groups = list(model), optimizer.param_groups
        settings = [self.settings_of(group) for group in groups]
        if not (are_same(layers, self.layers) and settings == self.settings and threads() == self.threads):
            return False
        owned = [parameter for group in groups for parameter in group["params"]]
        return are_same(owned, self.owned) and self.held.are(tensors_of_step(layers, optimizer))

    def step(self, x: Tensor, labels: Tensor, *, leaves: bool = False) -> Tensor | None:
        """Take a step on x [batch, in] and labels [batch], and return the loss; None for what the kernel would misread.

        With `leaves` it is one after which `factors` are there.
        """
        if not self.links[0].reads(x) or x.requires_grad or is_traced(x):
            return None
        if not (type(labels) is Tensor and labels.is_cpu and labels.dtype == torch.int64 and labels.shape == x.shape[:1]):
            return None
        lowest, highest = labels.aminmax()
        if int(lowest) < 0 or int(highest) >= self.links[-1].rows.rows:
            return None
        for parameter in self.trained:
            if not parameter.requires_grad or has_hooks(parameter):
                return None
        ready = self._leaving(len(x)) if leaves else self.by_batch.get(len(x)) or self._ready(len(x))
        if ready is None:
            return None
        for parameter in self.trained:
            parameter.grad = None
        loss = ready.step(x.contiguous(), labels.contiguous(), self._numbers())
        increment_version(self.trained)  # so that copies of weights and graphs from before know that they are out of date
        if "step" in self.optimizer.__dict__:
            self.optimizer._opt_called = True  # type: ignore[attr-defined]  # noqa: SLF001  # as a scheduler wants to know
        return loss

    def _ready(self, batch: int) -> Ready:
        if len(self.by_batch) == MOST_BATCHES:
            self.by_batch.clear()
        self.by_batch[batch] = ready_step(self.links, self.parameters, self.rule, batch)
        return self.by_batch[batch]

    def _leaving(self, batch: int) -> Ready | None:
        if self.leaving is None or self.leaving[0] != batch:
            made = leaving_step(self.links, self.parameters, self.rule, batch)
            self.leaving = None if made is None else (batch, made)
        return None if self.leaving is None else self.leaving[1].ready

    @property
    def factors(self) -> dict[SparseLinear, Factors]:
        """From what the gradient of every weight of each layer is made, as the last step that leaves it has left it."""
        assert self.leaving is not None
        return dict(zip(self.layers, self.leaving[1].factors, strict=True))

    def _numbers(self) -> list[float]:
        """Count the step, and return the numbers of the rule for each parameter in turn."""
        known, found = dict[tuple[int, int], tuple[float, ...]](), list[float]()
        for group, count in zip(self.groups, self.counts, strict=True):
            if group is None:
                found += [0.0] * self.rule.width
                continue
            if count is not None:
                count.value += 1
            key = group, 0 if count is None else int(count.value)
            if key not in known:
                known[key] = self.rule.numbers(self.optimizer.param_groups[group], key[1])
            found += known[key]
        return found


def tensors_of_step(layers: Iterable[nn.Module], optimizer: torch.optim.Optimizer) -> list[Any]:
    """Return all tensors of layers and what an optimizer keeps of each parameter."""
    found, state, nothing = tensors_of(layers), optimizer.state, dict[str, Any]()
    for layer in layers:
        for parameter in layer._parameters.values():  # noqa: SLF001  # to tell parameters among all takes several microseconds
            found += nothing.values() if parameter is None else state.get(parameter, nothing).values()
    return found


def _count(steps: Tensor) -> Any:
    """Return an optimizer's number of steps as something whose `value` is read and written in place.

    Raises LookupError where it stands on another device, as torch's default may be.
    """
    if not steps.is_cpu:
        raise LookupError("steps that are counted elsewhere")
    return COUNTS[steps.dtype].from_address(steps.data_ptr())
