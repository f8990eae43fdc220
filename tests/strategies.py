"""Every random input of the tests: hypothesis draws sizes, levels and a seed; torch's generator draws the numbers."""

import math
from collections.abc import Iterable, Sequence

import pytest
import torch
from _pytest.mark import ParameterSet
from hypothesis import strategies as st
from torch import Tensor

from bench.statistics.censoring import Bounds, seen
from sparse_models.kernels.cpu._compile import vector_bytes
from sparse_models.kernels.variant import Variant
from sparse_models.layers import LAYERS
from sparse_models.masks import FULL, UNSTRUCTURED, random_score
from sparse_models.models import MLP, Drawn, convert, draw, sparse_mlp
from sparse_models.testing import Problem
from sparse_models.training import OPTIMIZERS
from sparse_models.updates import UPDATES


def places(names: Iterable[str]) -> list[ParameterSet]:
    """The layers, each on each device: one that this machine or the layer lacks is skipped, with the reason."""
    on_cuda = list[ParameterSet]()
    for name in names:
        layer, marks = LAYERS[name], [pytest.mark.card]
        if torch.cuda.is_available() and "cuda" not in layer.devices:
            absent = f"{': ' * bool(layer.absent)}{layer.absent.get('cuda', '')}"
            marks.append(pytest.mark.skip(reason=f"{name} runs on {', '.join(layer.devices)}{absent}"))
        on_cuda.append(pytest.param(name, "cuda", marks=marks))
    return [pytest.param(name, "cpu") for name in names] + on_cuda


MOVING_LAYERS = sorted(name for name, layer in LAYERS.items() if layer.pattern.moves)
SPARSE_LAYERS = sorted(name for name, layer in LAYERS.items() if layer.pattern is not FULL)
OWN_LAYERS = {name: layer for name, layer in LAYERS.items() if not layer.optional}
# Those that a run on a CPU has where none is asked for by name.
DEFAULT_LAYERS = {name: layer for name, layer in OWN_LAYERS.items() if layer.is_default_on("cpu")}
# Those that run in float64, for what rounding would decide in float32.
FLOAT64_LAYERS = sorted(name for name, layer in LAYERS.items() if "float64" in layer.dtypes)


def of_each_kind(names: Iterable[str]) -> list[str]:
    """Those of the layers that differ in more than the size of their blocks, of which the least and the default one are kept.

    Blocks of any size are one class. What their size does decide, kernels, patterns and gates, is tested of every size.
    """
    return [name for name in names if name not in ("block8", "block32", "block64")]


# Update rules that move masks of any kind as a whole, and those of each layer.
MOVING_RULES = sorted(name for name, rule in UPDATES.items() if rule.moves and rule.fits(UNSTRUCTURED))
RULES_OF = {
    name: sorted(rule for rule, update in UPDATES.items() if update.moves and update.fits(layer.pattern))
    for name, layer in LAYERS.items()
}

sizes = st.integers(1, 12)
shapes = st.tuples(sizes, sizes)
seeds = st.integers(0, 2**32 - 1)
# The field's levels and both ends more often than chance would have them.
sparsities = st.sampled_from([0.0, 0.5, 0.8, 0.9, 0.95, 0.99, 1.0]) | st.floats(0, 1)
fractions = st.sampled_from([0.0, 0.3, 1.0]) | st.floats(0, 1)
# Of kernels for CPUs: few, for each is compiled.
variants = st.builds(
    Variant,
    st.sampled_from([1, 3, 16]),
    st.sampled_from([1, 2, 8]),
    st.sampled_from([size for size in (16, 32, 64) if size <= vector_bytes()]),
    st.integers(1, 3),
    st.sampled_from([0, 1, 2**15]),
)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64).to(dtype)


def widest(layer: str, device: str = "cpu") -> torch.dtype:
    """The dtype in which a layer can be held to its properties most closely."""
    able = LAYERS[layer].dtypes_on(device)
    widest: torch.dtype = getattr(torch, next(dtype for dtype in ("float64", "float32", *able) if dtype in able))
    return widest


def drawn(layer: str, sizes: Sequence[int], seed: int, device: str = "cpu") -> Drawn:
    """Weights and biases of an MLP on a device in the widest dtype of the layer."""
    return convert(draw(sizes, generator(seed)), device, widest(layer, device))


def coarse(seed: int, *shape: int) -> Tensor:
    """Few different values, so that most of them tie."""
    return torch.randint(-2, 3, shape, generator=generator(seed)).double()


@st.composite
def masks(draw: st.DrawFn, shape: Sequence[int] | None = None) -> Tensor:
    """A mask of any shape with any number of kept weights."""
    shape = draw(shapes) if shape is None else shape
    kept = draw(st.integers(0, math.prod(shape)))
    flat = torch.zeros(math.prod(shape), dtype=torch.bool)
    flat[torch.randperm(len(flat), generator=generator(draw(seeds)))[:kept]] = True
    return flat.reshape(tuple(shape))


def mask_for(layer: str, shape: Sequence[int], sparsity: float, seed: int = 0) -> Tensor:
    """A random mask of a shape [out, in] and of the layer's pattern, as sparse as that has it."""
    pattern = LAYERS[layer].pattern
    return pattern.from_score(random_score(shape, generator(seed)), pattern.nearest(sparsity))


def mlp_of(layer: str, drawn: Drawn, sparsity: float, seed: int = 0, *, scaled: bool = False) -> MLP:
    """An MLP of a layer, as sparse as its pattern has it."""
    return sparse_mlp(drawn, layer, LAYERS[layer].pattern.nearest(sparsity), generator(seed), scaled=scaled)


@st.composite
def masks_of(draw: st.DrawFn, layer: str, shape: Sequence[int]) -> Tensor:
    """A mask of a shape [out, in] that a layer can hold, of any sparsity; where rows are groups, some are empty."""
    pattern = LAYERS[layer].pattern
    if pattern is UNSTRUCTURED:
        return draw(masks(shape))
    mask = pattern.from_score(random_score(shape, generator(draw(seeds))), pattern.nearest(draw(sparsities)))
    if pattern.group is not None:
        mask[draw(st.lists(st.integers(0, len(mask) - 1), max_size=2))] = False
    return mask


@st.composite
def problems(draw: st.DrawFn, layer: str, dtype: torch.dtype | None = None, device: str = "cpu") -> Problem:
    """What a layer is built from and fed, of any size down to 1 x 1 and batch 1, bias or none, in either layout."""
    dtype = dtype or widest(layer, device)
    outputs, inputs, batch, seed = draw(sizes), draw(sizes), draw(sizes), draw(seeds)
    pattern = LAYERS[layer].pattern
    sparsity = pattern.nearest(draw(sparsities))
    x = normal(seed + 1, batch, inputs, dtype=dtype).to(device)
    return Problem(
        weight=normal(seed, outputs, inputs, dtype=dtype).to(device),
        mask=pattern.from_score(random_score((outputs, inputs), generator(seed)), sparsity).to(device),
        bias=normal(seed + 2, outputs, dtype=dtype).to(device) if draw(st.booleans()) else None,
        x=x.t().contiguous().t() if draw(st.booleans()) else x,
        output_grad=normal(seed + 3, batch, outputs, dtype=dtype).to(device),
    )


EVERY_OPTIMIZER = "rigl"  # the state of each follows weights by the same code, whichever rule moves them


def rules_and_optimizers(rules: Iterable[str]) -> list[tuple[str, str]]:
    """Return the pairs for some rules, among them the one that every optimizer is for."""
    return [(rule, name) for rule in rules for name in OPTIMIZERS if name == "adam" or rule == EVERY_OPTIMIZER]


@st.composite
def _censored(draw: st.DrawFn) -> tuple[float, Bounds]:
    value = draw(st.floats(0.01, 100))
    low = value * draw(st.sampled_from([0.1, 0.9, 1.0]))
    return value, draw(st.sampled_from([seen(value), Bounds(low, math.inf), Bounds(low, value * 2)]))


censored = _censored()  # a positive figure, and what is known of it
