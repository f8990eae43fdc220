"""A training's steps on a GPU in, each of them one launch out: replays of a CUDA graph in which whole steps are captured."""

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from sparse_models.errors import InputError
from sparse_models.fused_step import has_hooks, tensors_of_step
from sparse_models.kernels.asynchronous import is_asynchronous, is_captured
from sparse_models.kernels.source import Held
from sparse_models.models import MLP
from sparse_models.replays.capture import capturing

MOST_SIZES = 4  # of batches of which a step is captured: an epoch's last has fewer samples
BEFORE = 2  # steps of a size that are launched as they are: in them optimizers make their state, and libraries their handles


class Step(NamedTuple):
    """A captured step, with the memory in which it reads its samples and labels, and writes its loss."""

    graph: torch.cuda.CUDAGraph
    samples: Tensor
    labels: Tensor
    loss: Tensor


class ReplayedSteps:
    """Steps of one model and one optimizer, each captured once it was launched a few times; so anew where tensors have moved.

    A mask that moves in place leaves a captured step valid. Gradients are the graph's own: `grad` is not of the last step.
    """

    def __init__(self, model: MLP, optimizer: torch.optim.Optimizer, take: Callable[[Tensor, Tensor], Tensor]) -> None:
        """Replay what `take` does to model and optimizer with samples [batch, in] and labels [batch]; it returns the loss."""
        self.model, self.optimizer, self.take = model, optimizer, take
        self.why_not: str | None = None  # no step is replayed any more
        self.stream: torch.cuda.Stream | None = None  # on which steps are captured
        self.captured, self.taken = dict[Any, Step](), Counter[Any]()
        self._held, self._settings = Held([]), list[Any]()

    def step(self, samples: Tensor, labels: Tensor) -> Tensor | None:
        """Take a step, by a replay where there is one, and return its loss; or do nothing and return None: others take it."""
        if self.why_not is not None or not is_asynchronous(samples) or is_captured(samples) or samples.requires_grad:
            return None
        if any(map(has_hooks, self._parameters())):  # of which a replay calls none
            return None
        key = (samples.shape, samples.dtype, labels.shape, labels.dtype, samples.device)
        if self.captured and not self._is_current():
            self.captured.clear()
            self.taken.clear()  # for other sizes there may be other kernels to be compiled, which no capture holds
        if key not in self.captured:
            if len(self.captured) == MOST_SIZES:
                return None
            self.taken[key] += 1
            if self.taken[key] <= BEFORE or not self._has_state():
                return self._launched(samples, labels)
            try:
                self.captured[key] = self._capture(samples, labels)
            except (InputError, torch.OutOfMemoryError) as error:  # a graph has memory of its own: steps as they are may fit
                self.why_not = str(error)
                return None
            self._hold()  # a step's gradients are new, the rest is as it was
        step = self.captured[key]
        step.samples.copy_(samples)
        step.labels.copy_(labels)
        step.graph.replay()
        # So that copies of weights, and graphs of autograd from before, know that they are out of date.
        increment_version(self._parameters())
        return step.loss.clone()

    def _launched(self, samples: Tensor, labels: Tensor) -> Tensor:
        """Take a step as it is, on the stream of the capture: what libraries and autograd make for a stream is then there."""
        stream, current = self._stream_on(samples.device), torch.cuda.current_stream(samples.device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            loss = self.take(samples, labels)
        current.wait_stream(stream)
        return loss

    def _capture(self, samples: Tensor, labels: Tensor) -> Step:
        graph, own = torch.cuda.CUDAGraph(), (samples.clone(), labels.clone())
        with torch.cuda.device(samples.device), torch.cuda.stream(self._stream_on(samples.device)), capturing(graph):
            loss = self.take(*own)
        return Step(graph, *own, loss)

    def _stream_on(self, device: torch.device) -> torch.cuda.Stream:
        if self.stream is None:
            self.stream = torch.cuda.Stream(device)
        return self.stream

    def _hold(self) -> None:
        self._held, self._settings = Held(self._tensors()), self._settings_now()

    def _is_current(self) -> bool:
        """Tell whether all tensors are at their places, and the optimizer's numbers, which a graph has by value, the same."""
        return self._held.are(self._tensors()) and self._settings == self._settings_now()

    def _has_state(self) -> bool:
        """Tell whether the optimizer has its state: were it made in a captured step, each replay would begin with a new one."""
        state = self.optimizer.state
        return all(
            any(isinstance(one, Tensor) for one in state.get(parameter, {}).values())
            for parameter in self._parameters()
            if parameter.requires_grad
        )

    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def _tensors(self) -> list[Any]:
        found = tensors_of_step(list(self.model), self.optimizer)
        return [one for one in found if one is None or isinstance(one, Tensor)]

    def _settings_now(self) -> list[Any]:
        settings = [{name: one for name, one in group.items() if name != "params"} for group in self.optimizer.param_groups]
        return [*settings, *(parameter.requires_grad for parameter in self._parameters())]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"captured": {}, "stream": None}  # made anew where needed
