"""The MLPs that are compared: dense, sparse, and a narrow dense one with as many weights as the sparse has non-zeros."""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from sparse_models.errors import InputError, checked
from sparse_models.layers import LAYERS, SparseLinear
from sparse_models.linear import is_traced
from sparse_models.masks import DISTRIBUTIONS, count_kept, random_score, top_k_mask, uniform_numbers
from sparse_models.updates import Update, kept_gradients

# One (weight [out, in], bias [out]) per layer: what every arm of a comparison starts from.
Drawn = list[tuple[Tensor, Tensor]]


class MLP(nn.Module):
    """Layers with ReLU between them: [batch, in] -> [batch, out]."""

    sparsities: list[float] | None = None  # how sparse each layer is to be after a training, where it is not so from the start

    @checked
    def __init__(self, layers: Iterable[SparseLinear]) -> None:
        """Chain `layers`."""
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def __iter__(self) -> Iterator[SparseLinear]:
        layers = cast("nn.ModuleList", self._modules["layers"])
        # What `iter(self.layers)` does takes 0.9 us longer, a tenth of what a small chain takes for one sample.
        return iter(cast("Iterable[SparseLinear]", layers._modules.values()))  # noqa: SLF001

    def forward(self, x: Tensor) -> Tensor:
        """Return the last layer's output, without an activation."""
        layers = list(self)
        whole = layers[0].chain_output(layers, x) if layers and not is_traced(x) else None
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
        fused = fused and torch.is_grad_enabled() and not is_traced(x) and not any(layer.is_watched for layer in layers)
        loss = layers[0].chain_cross_entropy(layers, x, labels) if fused else None
        return functional.cross_entropy(self(x), labels) if loss is None else loss


@checked
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


@checked
def dense_mlp(drawn: Drawn) -> MLP:
    """Return the dense MLP of the drawn weights."""
    full = (torch.ones_like(weight, dtype=torch.bool) for weight, _ in drawn)
    return MLP(LAYERS["dense"](weight, mask, bias) for (weight, bias), mask in zip(drawn, full, strict=True))


@checked
def sparse_mlp(
    drawn: Drawn,
    layer: str,
    sparsity: float,
    generator: torch.Generator | None = None,
    *,
    distribution: str = "uniform",
    scaled: bool = False,
    update: Update | None = None,
    samples: tuple[Tensor, Tensor] | None = None,
) -> MLP:
    """Return the MLP of `layer` (a name in LAYERS) that keeps a random 1 - `sparsity` of the drawn weights.

    `distribution`, a name in DISTRIBUTIONS, shares the sparsity out over the layers; `scaled` multiplies each layer's weights
    by 1 / sqrt(its density), so that the variance of its output stays the dense one's. `update`, the rule of the training to
    come, may have it begin with another number of weights, or choose them by their gradient on `samples`, inputs [batch, in]
    and labels [batch]. Raises InputError for unknown names, and where there are no samples for such a rule.
    """
    layer_class = LAYERS.find(layer)
    sparsities = DISTRIBUTIONS.find(distribution)([weight.shape for weight, _ in drawn], sparsity)
    if update is not None and update.initial_score is not None:
        scores = _initial_scores(drawn, update, samples, generator)
        sparsities = _by_rank(scores, sparsities) if layer_class.pattern.is_free else sparsities
    else:
        scores = [random_score(weight.shape, generator, weight.device) for weight, _ in drawn]
    first = sparsities if update is None else [update.sparsity_at(final, 0.0) for final in sparsities]
    layers = []
    for (weight, bias), mask in zip(drawn, layer_class.pattern.masks(scores, first), strict=True):
        density = int(mask.sum()) / mask.numel()
        scale = 1 / math.sqrt(density) if scaled and density else 1.0
        layers.append(layer_class(weight * scale, mask, bias))
    model = MLP(layers)
    if first != sparsities:
        model.sparsities = sparsities
    return model


def _initial_scores(
    drawn: Drawn, update: Update, samples: tuple[Tensor, Tensor] | None, generator: torch.Generator | None
) -> list[Tensor]:
    """Return the rule's score of each drawn weight [out, in], by its gradient in the dense network."""
    if samples is None or update.initial_score is None:
        raise InputError(
            f"{update.name}: expected samples by whose gradient the first weights are chosen, got none; pass a batch"
        )
    model = dense_mlp(drawn)
    model.cross_entropy(*samples).backward()
    gradients = kept_gradients(model)
    return [update.initial_score(layer.to_dense(), gradients[layer], generator) for layer in model]


def _by_rank(scores: Sequence[Tensor], sparsities: Sequence[float]) -> list[float]:
    """Return the sparsities by which the highest scores of all layers are kept, as many as `sparsities` would keep."""
    sizes = [score.numel() for score in scores]
    kept = sum(count_kept(size, sparsity) for size, sparsity in zip(sizes, sparsities, strict=True))
    chosen = top_k_mask(torch.cat([score.reshape(-1) for score in scores]), kept).split(sizes)
    return [1 - int(mask.sum()) / len(mask) for mask in chosen]


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


@checked
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
