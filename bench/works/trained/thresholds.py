"""A trained MLP whose small hidden activations are set to 0: its thresholds, chosen on samples, and what it makes of inputs."""

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from sparse_models.activations import MagnitudeThreshold
from sparse_models.models import MLP

SAMPLES = 64  # that one sample's forward pass takes in turns: other activations are zero in each


class Thresholded(nn.Module):
    """An MLP with 0 for hidden activations of at most a threshold, one for each hidden layer; at 0 it is a ReLU.

    It is one operation, and takes as long as a ReLU.
    """

    def __init__(self, model: MLP, thresholds: Sequence[float]) -> None:
        """Take a trained MLP."""
        super().__init__()
        self.layers, self.thresholds = model.layers, list(thresholds)

    def forward(self, x: Tensor) -> Tensor:
        """Return the last layer's output [batch, out] for x [batch, in]."""
        *hidden, last = self.layers
        for layer, threshold in zip(hidden, self.thresholds, strict=True):
            x = functional.threshold(layer(x), threshold, 0.0)
        return last(x)  # type: ignore[no-any-return]  # Module.__call__ is untyped

    def inputs(self, x: Tensor) -> Iterator[Tensor]:
        """Yield what each layer is given for x [batch, in]."""
        yield x
        for layer, threshold in zip(self.layers, self.thresholds, strict=False):
            x = functional.threshold(layer(x), threshold, 0.0)
            yield x


@torch.no_grad()
def thresholds_for(model: MLP, samples: Tensor, share: float) -> list[float]:
    """Return, for each hidden layer, the least threshold that sets a share of its activations on samples [batch, in] to 0.

    They are those of the network without thresholds, as in TEAL (arXiv:2408.14690). Where a ReLU leaves as many zeros it is 0.
    """
    plain = Thresholded(model, [0.0] * (len(model.layers) - 1))
    _, *hidden = plain.inputs(samples)
    return [float(MagnitudeThreshold.for_share(activations, share).threshold) for activations in hidden]


@torch.no_grad()
def zeros_of(model: Thresholded, samples: Tensor) -> list[float]:
    """Return the share of zeros in what each layer is given for samples [batch, in]."""
    return [float((activations == 0).double().mean()) for activations in model.inputs(samples)]


def one_by_one(model: nn.Module, samples: Tensor) -> Callable[[], Tensor]:
    """Return the forward pass of one sample, of the first of some samples [batch, in] the next at each call."""
    turns = itertools.cycle([one.clone() for one in samples[:SAMPLES].split(1)])

    def forward() -> Tensor:
        with torch.no_grad():
            return model(next(turns))  # type: ignore[no-any-return]

    return forward
