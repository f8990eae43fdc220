"""The MLPs that are compared: dense, sparse, and a narrow dense one with as many weights as the sparse has non-zeros."""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from sparse_models.errors import InputError
from sparse_models.layers import LAYERS, SparseLinear
from sparse_models.masks import DISTRIBUTIONS, random_score, uniform_numbers

# One (weight [out, in], bias [out]) per layer: what every arm of a comparison starts from.
Drawn = list[tuple[Tensor, Tensor]]


class MLP(nn.Module):
    """Layers with ReLU between them: [batch, in] -> [batch, out]."""

    def __init__(self, layers: Iterable[SparseLinear]) -> None:
        """Chain `layers`."""
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def __iter__(self) -> Iterator[SparseLinear]:
        return iter(cast("Iterable[SparseLinear]", self.layers))

    def forward(self, x: Tensor) -> Tensor:
        """Return the last layer's output, without an activation."""
        layers = list(self)
        whole = layers[0].chain_output(layers, x) if layers else None
        if whole is not None:
            return whole
        for number, layer in enumerate(layers, 1):
            x = layer(x) if number == len(layers) else torch.relu(layer(x))
        return x

    def cross_entropy(self, x: Tensor, labels: Tensor, *, fused: bool = True) -> Tensor:
        """Return the mean cross-entropy for x [batch, in] and labels [batch].

        `fused` leaves it to the layers' own kernel to go through all of them at once, where their class has one and no hook
        watches a single layer. Losses and gradients are the same but for rounding.
        """
        layers = list(self)
        fused = fused and torch.is_grad_enabled() and not any(layer.is_watched for layer in layers)
        loss = layers[0].chain_cross_entropy(layers, x, labels) if fused else None
        return functional.cross_entropy(self(x), labels) if loss is None else loss


def draw(sizes: Sequence[int], generator: torch.Generator | None = None, dtype: torch.dtype = torch.float64) -> Drawn:
    """Draw weights and biases for layer `sizes` (in, hidden ..., out) by PyTorch's own rule for nn.Linear, in float64.

    Another `dtype` has the same numbers rounded. They are where the generator is, and others on a GPU than on a CPU. Raises
    InputError for fewer than two sizes or one below 1.
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise InputError(f"expected at least two layer sizes, each at least 1, got {list(sizes)}; for example 100 256 10")
    return [
        (_symmetric((outputs, inputs), inputs, generator, dtype), _symmetric((outputs,), inputs, generator, dtype))
        for inputs, outputs in pairwise(sizes)
    ]


def _symmetric(shape: tuple[int, ...], fan_in: int, generator: torch.Generator | None, dtype: torch.dtype) -> Tensor:
    on = "cpu" if generator is None else generator.device
    return uniform_numbers(shape, generator, on, dtype, lambda drawn, _: (2 * drawn - 1) / math.sqrt(fan_in))


def convert(drawn: Drawn, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Drawn:
    """Return the drawn weights on a device and in a dtype."""
    return [(weight.to(device, dtype), bias.to(device, dtype)) for weight, bias in drawn]


def dense_mlp(drawn: Drawn) -> MLP:
    """Return the dense MLP of the drawn weights."""
    full = (torch.ones_like(weight, dtype=torch.bool) for weight, _ in drawn)
    return MLP(LAYERS["dense"](weight, mask, bias) for (weight, bias), mask in zip(drawn, full, strict=True))


def sparse_mlp(
    drawn: Drawn,
    layer: str,
    sparsity: float,
    generator: torch.Generator | None = None,
    *,
    distribution: str = "uniform",
    scaled: bool = False,
) -> MLP:
    """Return the MLP of `layer` (a name in LAYERS) that keeps a random 1 - `sparsity` of the drawn weights.

    `distribution` (uniform, er, erk) shares the sparsity out over the layers; `scaled` multiplies each layer's weights by
    1 / sqrt(its density), so that the variance of its output stays the dense one's. Raises InputError for unknown names.
    """
    layer_class = LAYERS.find(layer)
    sparsities = DISTRIBUTIONS.find(distribution)([weight.shape for weight, _ in drawn], sparsity)
    scores = [random_score(weight.shape, generator, weight.device) for weight, _ in drawn]
    layers = []
    for (weight, bias), mask in zip(drawn, layer_class.pattern.masks(scores, sparsities), strict=True):
        density = int(mask.sum()) / mask.numel()
        scale = 1 / math.sqrt(density) if scaled and density else 1.0
        layers.append(layer_class(weight * scale, mask, bias))
    return MLP(layers)


def narrow_sizes(sizes: Sequence[int], nnz: int) -> tuple[int, ...]:
    """Return `sizes` with the hidden ones shrunk by one common factor to the most weights that do not exceed `nnz`.

    Hidden sizes never fall below 1, so a very small `nnz` may be exceeded. Without hidden sizes nothing can shrink.
    """

    def shrunk(factor: float) -> tuple[int, ...]:
        return (sizes[0], *(max(1, int(size * factor)) for size in sizes[1:-1]), sizes[-1])

    def fits(factor: float) -> bool:
        chain = shrunk(factor)
        return sum(a * b for a, b in pairwise(chain)) <= nnz

    if fits(1.0):
        return tuple(sizes)
    low, high = 0.0, 1.0
    for _ in range(50):  # bisection: 50 halvings are past any difference that a whole number of units can show
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return shrunk(low)


def narrow_mlp(drawn: Drawn, nnz: int) -> MLP:
    """Return the dense MLP with hidden layers narrowed to about `nnz` weights.

    It starts from the leading part of the same drawn weights, rescaled to PyTorch's rule for its own fan-in.
    """
    sizes = narrow_sizes([drawn[0][0].shape[1], *(weight.shape[0] for weight, _ in drawn)], nnz)
    part = []
    for (weight, bias), inputs, outputs in zip(drawn, sizes, sizes[1:], strict=False):
        scale = math.sqrt(weight.shape[1] / inputs)
        part.append((weight[:outputs, :inputs] * scale, bias[:outputs] * scale))
    return dense_mlp(part)
