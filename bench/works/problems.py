"""From a case to tensors: weights, masks, inputs and output gradients of each layer of its shape, in a memory layout."""

import copy
import math
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from bench.cases import Case
from bench.grids import COLD_REPLAY, stored
from bench.machine.bounds import cache_bytes
from bench.shapes import Shape
from sparse_models.layers import LAYERS
from sparse_models.masks import FULL, Pattern, count_kept, random_score, skewed_score
from sparse_models.models import MLP, draw, narrow_sizes
from sparse_models.testing import Problem

LAYOUTS = ("batch-major", "feature-major")
# Of cold weights so many copies are used in turn that each is read again only after four times what the last cache holds.
CACHES, MOST_COPIES = 4, 64


def narrowed(case: Case) -> Case:
    """Return the dense case of as many weights as a sparse layer of the case's sparsity keeps, in narrower layers.

    A network keeps its inputs and outputs, and has narrower hidden layers. A single layer stands for one inside a network: both
    its sides are hidden.
    """
    shape = Shape.parse(case.shape)
    weights = [inputs * outputs for inputs, outputs in pairwise(shape.sizes)]
    nnz = sum(count_kept(size, case.sparsity) for size in weights)
    if len(weights) == 1:
        sizes = tuple(max(1, int(size * math.sqrt(nnz / weights[0]))) for size in shape.sizes)
    else:
        sizes = narrow_sizes(shape.sizes, nnz)
    return case._replace(model="dense", sparsity=0.0, shape=str(Shape(sizes, shape.batch)))


def problems(case: Case, layer: str) -> list[Problem]:
    """Return, for each layer of the case's shape, random weights, a mask of `layer`'s pattern, inputs and gradients."""
    return [problem(LAYERS[layer].pattern, key) for key in keys(case, layer)]


class Key(NamedTuple):
    """What the problem of one layer of a shape is made from."""

    inputs: int
    outputs: int
    batch: int
    sparsity: float
    skew: float
    device: str
    dtype: str
    # Where the pattern chooses the masks of a network together: its sizes, and which of its layers this is.
    network: tuple[int, ...] = ()
    place: int = 0
    zeros: float = 0.0  # share of the inputs that are 0


def keys(case: Case, layer: str, most_rows: int | None = None) -> list[Key]:
    """Return what `problem` makes each layer of the case's shape from, with at most `most_rows` samples."""
    shape = Shape.parse(case.shape)
    batch = min(shape.batch, most_rows or shape.batch)
    pattern = LAYERS[layer].pattern
    sparsity, skew = (0.0, 0.0) if pattern is FULL else (case.sparsity, case.skew)
    network = () if pattern.of_network is None or len(shape.sizes) == 2 else shape.sizes
    return [
        Key(*sizes, batch, sparsity, skew, case.device, stored(case.dtype), network, place if network else 0, case.zeros)
        for place, sizes in enumerate(pairwise(shape.sizes))
    ]


def problem(pattern: Pattern, key: Key) -> Problem:
    """Return random weights, a mask of the pattern, inputs and output gradients: the same for the same arguments.

    They are drawn on the device itself, where drawing and copying the largest weights would take seconds on the host.
    """
    sizes, kind = (key.inputs, key.outputs), (key.device, key.dtype)
    weight, bias = _weights(*sizes, *kind)
    x, output_grad = _activations(*sizes, key.batch, *kind, key.zeros)
    mask = _masks(pattern, key.network or sizes, key.sparsity, key.skew, key.device)[key.place]
    return Problem(weight, mask, bias, x, output_grad)


@lru_cache(maxsize=8)  # the layers of one shape, whatever the batch: cases of one shape follow one another
def _weights(inputs: int, outputs: int, device: str, dtype: str) -> tuple[Tensor, Tensor]:
    [drawn] = draw((inputs, outputs), torch.Generator(device).manual_seed(0), getattr(torch, dtype))
    return drawn


@lru_cache(maxsize=8)  # likewise, and those of its gate's smaller batches
def _activations(inputs: int, outputs: int, batch: int, device: str, dtype: str, zeros: float) -> tuple[Tensor, Tensor]:
    generator, number_type = torch.Generator(device).manual_seed(3), getattr(torch, dtype)
    x = torch.randn(batch, inputs, generator=generator, device=device).to(number_type)
    output_grad = torch.randn(batch, outputs, generator=generator, device=device).to(number_type)
    if zeros:  # in each sample as many, at random places
        places = torch.rand(batch, inputs, generator=generator, device=device).argsort(1)[:, : round(zeros * inputs)]
        x = x.scatter(1, places, 0.0)
    return x, output_grad


@lru_cache(maxsize=32)  # as many sparsities; a mask is small beside what it masks
def _masks(pattern: Pattern, sizes: tuple[int, ...], sparsity: float, skew: float, device: str) -> list[Tensor]:
    """Return the masks of a chain of layers of these sizes, mostly of one."""
    generator = torch.Generator(device).manual_seed(1)
    shapes = [torch.Size((outputs, inputs)) for inputs, outputs in pairwise(sizes)]
    if pattern is FULL:
        return [torch.ones(shape, dtype=torch.bool, device=device) for shape in shapes]
    # Rounded, for half the memory: which of a few ties are kept is all the same, and how many are is exact.
    rounded = torch.float32
    scores = [
        skewed_score(shape, sparsity, skew, generator, dtype=rounded) if skew else random_score(shape, generator, dtype=rounded)
        for shape in shapes
    ]
    return pattern.masks(scores, [sparsity] * len(scores))


def build(layer: str, parts: list[Problem]) -> MLP:
    """Return the chain of `layer` over the weights and masks of `parts`."""
    return MLP(LAYERS[layer](part.weight, part.mask, part.bias) for part in parts)


def copies(model: MLP, case: Case, parts: list[Problem]) -> list[MLP]:
    """Return the model alone or, where its weights are to be cold, with as many copies as the last cache cannot hold."""
    if case.regime != COLD_REPLAY:
        return [model]
    if case.op == "forward":  # so that what a layer makes at the first call is copied, and not made in every copy
        with torch.no_grad():
            model.eval()(parts[0].x)
    read = sum(layer.weight_bytes for layer in model)
    count = min(MOST_COPIES, max(2, -(-CACHES * cache_bytes(case.device) // read)))
    return [model, *(copy.deepcopy(model) for _ in range(count - 1))]


def as_layout(x: Tensor, layout: str) -> Tensor:
    """Return x [batch, features] in the strides of `layout`."""
    return x.t().contiguous().t() if layout == "feature-major" else x.contiguous()


def layout_of(case: Case, layer: str, dense_layout: str) -> str:
    """Return the layout that `layer` prefers for a case; one that takes any gets the one in which dense is fastest."""
    kind, batch = torch.device(case.device).type, Shape.parse(case.shape).batch
    layout = LAYERS[layer].layout_for(kind, batch, learning=case.op not in ("forward", "beside"))
    return dense_layout if layout == "any" else layout


def labels_of(parts: list[Problem]) -> Tensor:
    """Return a random class [batch] for each sample of a network."""
    (batch, classes), device = parts[-1].output_grad.shape, parts[0].x.device
    return torch.randint(classes, (batch,), generator=torch.Generator(device).manual_seed(2), device=device)
