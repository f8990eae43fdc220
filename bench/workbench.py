"""From a case to what is timed: weights, masks and inputs, the gate, and the dense reference at its best."""

from collections.abc import Callable
from functools import cache, lru_cache
from time import perf_counter

import pytest
import torch
from torch import Tensor

from bench.cases import Case, Shape
from bench.pairing import synchronised, warm_up
from sparse_models.errors import GateError
from sparse_models.layers import SparseLinear
from sparse_models.masks import FULL, Pattern, random_score
from sparse_models.models import MLP, convert, draw
from sparse_models.registry import LAYERS
from sparse_models.testing import Definition, Problem, define, gate
from sparse_models.training import OPTIMIZERS

LAYOUTS = ("batch-major", "feature-major")
GATE_ROWS = 1024  # of the batch, if it is larger: the definition is computed in float64, in several passes over memory


def problems(case: Case, layer: str) -> list[Problem]:
    """Return, for each layer of the case's shape, random weights, a mask of `layer`'s pattern, inputs and gradients."""
    return [_problem(LAYERS[layer].pattern, *key) for key in _keys(case, layer)]


# in, out, batch, sparsity, device, dtype of one layer of a shape
_Key = tuple[int, int, int, float, str, str]


def _keys(case: Case, layer: str, most_rows: int | None = None) -> list[_Key]:
    shape = Shape.parse(case.shape)
    batch = min(shape.batch, most_rows or shape.batch)
    sparsity = 0.0 if LAYERS[layer].pattern is FULL else case.sparsity
    pairs = zip(shape.sizes, shape.sizes[1:], strict=False)
    return [(inputs, outputs, batch, sparsity, case.device, case.dtype) for inputs, outputs in pairs]


@lru_cache(maxsize=16)  # enough for a chain at one sparsity, which all layer types then share, and its gate's
def _problem(pattern: Pattern, inputs: int, outputs: int, batch: int, sparsity: float, device: str, dtype: str) -> Problem:
    generator = torch.Generator().manual_seed(0)
    number_type = getattr(torch, dtype)
    [(weight, bias)] = convert(draw((inputs, outputs), generator), device, number_type)
    mask = pattern.from_score(random_score(weight.shape, generator, device), sparsity)
    x = torch.randn(batch, inputs, generator=generator).to(device, number_type)
    output_grad = torch.randn(batch, outputs, generator=generator).to(device, number_type)
    return Problem(weight, mask, bias, x, output_grad)


@lru_cache(maxsize=8)
def _definition(pattern: Pattern, key: _Key) -> Definition:
    return define(_problem(pattern, *key))


@cache
def _gate_failure(layer: str, key: _Key, layout: str) -> str | None:
    """Return why the layer fails its gate, or None if it passes: found out once a session, whatever the operation."""
    pattern = LAYERS[layer].pattern
    problem = _problem(pattern, *key)
    try:
        gate(LAYERS[layer], problem._replace(x=as_layout(problem.x, layout)), _definition(pattern, key))
    except GateError as error:
        return str(error)
    return None


def pass_gate(case: Case, layer: str, layout: str) -> None:
    """Fail the case, before anything is timed, unless `layer` agrees with its definition at every size of its shape."""
    for key in _keys(case, layer, GATE_ROWS):
        failure = _gate_failure(layer, key, layout)
        if failure is not None:
            pytest.fail(failure, pytrace=False)


def build(layer: str, parts: list[Problem]) -> MLP:
    """Return the chain of `layer` over the weights and masks of `parts`."""
    return MLP(LAYERS[layer](part.weight, part.mask, part.bias) for part in parts)


def as_layout(x: Tensor, layout: str) -> Tensor:
    """Return x [batch, features] in the strides of `layout`."""
    return x.t().contiguous().t() if layout == "feature-major" else x.contiguous()


def layout_of(layer: type[SparseLinear], dense_layout: str) -> str:
    """Return the layout that `layer` prefers; one that takes any gets the one in which dense is fastest."""
    return dense_layout if layer.layout == "any" else layer.layout


def operation(op: str, model: MLP, parts: list[Problem], layout: str) -> Callable[[], object]:
    """Return what is timed: `op` of `model` on inputs and output gradients in a layout.

    A single layer stands for one inside a network, so it computes its input gradient; the first layer of an MLP does not.
    """
    x = as_layout(parts[0].x, layout).detach().requires_grad_(len(parts) == 1)
    grad = as_layout(parts[-1].output_grad, layout)
    # A single layer is called itself: the container around it would add the same microseconds to both arms.
    network = next(iter(model)) if len(parts) == 1 else model
    if op == "forward":

        def forward() -> Tensor:
            with torch.no_grad():
                return network(x)  # type: ignore[no-any-return]  # Module.__call__ is untyped

        return forward
    if op == "backward":
        output = network(x)
        inputs = [tensor for tensor in (x, *model.parameters()) if tensor.requires_grad]
        return lambda: torch.autograd.grad(output, inputs, grad, retain_graph=True)
    # So small a learning rate that thousands of steps on one gradient leave the weights in the range they came from.
    optimizer = OPTIMIZERS["adam"](model.parameters(), lr=1e-6)

    def step() -> None:
        optimizer.zero_grad()
        x.grad = None
        network(x).backward(grad)
        optimizer.step()

    return step


def dense_reference(case: Case, op: str) -> tuple[Callable[[], object], str]:
    """Return `op` of the dense layers of the case's shape, gated, in the layout in which dense is fastest, and that layout."""
    layout = _fastest_layout(op, case.shape, case.device, case.dtype, case.threads)
    pass_gate(case, "dense", layout)
    parts = problems(case, "dense")
    return operation(op, build("dense", parts), parts, layout), layout


@cache
def _fastest_layout(op: str, shape: str, device: str, dtype: str, threads: int) -> str:
    """Race dense against itself in the two layouts, and return the one of the lower median over interleaved rounds."""
    case = Case(op, "dense", "dense", "static", shape, 0.0, device, dtype, threads)
    parts = problems(case, "dense")
    works = [operation(op, build("dense", parts), parts, layout) for layout in LAYOUTS]
    plan = warm_up(works[0], works[1], device)
    clock = synchronised(perf_counter, device)
    times: list[list[float]] = [[], []]
    for _ in range(9):
        for work, seen in zip(works, times, strict=True):
            start = clock()
            for _ in range(plan.loops):
                work()
            seen.append(clock() - start)
    return min(zip((sorted(seen)[4] for seen in times), LAYOUTS, strict=True))[1]
