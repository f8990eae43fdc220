"""From a case to what is timed: weights, masks and inputs, the gate, and the dense reference at its best."""

import importlib
import os
import shutil
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.cases import Case, Shape
from bench.memo import MEMO, remembered
from sparse_models.errors import GateError
from sparse_models.layers import SparseLinear
from sparse_models.masks import FULL, Pattern, random_score, skewed_score
from sparse_models.models import MLP, convert, draw
from sparse_models.registry import LAYERS
from sparse_models.testing import Definition, Problem, define, gate, gate_chain, gate_loss
from sparse_models.training import OPTIMIZERS, training_step

LAYOUTS = ("batch-major", "feature-major")
COMPILED = "compiled"  # by torch.compile, on batch-major samples
GATE_ROWS = 1024  # of the batch, if it is larger: the definition is computed in float64, in several passes over memory


def problems(case: Case, layer: str) -> list[Problem]:
    """Return, for each layer of the case's shape, random weights, a mask of `layer`'s pattern, inputs and gradients."""
    return [_problem(LAYERS[layer].pattern, *key) for key in _keys(case, layer)]


# in, out, batch, sparsity, skew, device, dtype of one layer of a shape
_Key = tuple[int, int, int, float, float, str, str]


def _keys(case: Case, layer: str, most_rows: int | None = None) -> list[_Key]:
    shape = Shape.parse(case.shape)
    batch = min(shape.batch, most_rows or shape.batch)
    sparsity, skew = (0.0, 0.0) if LAYERS[layer].pattern is FULL else (case.sparsity, case.skew)
    pairs = zip(shape.sizes, shape.sizes[1:], strict=False)
    return [(inputs, outputs, batch, sparsity, skew, case.device, case.dtype) for inputs, outputs in pairs]


def _problem(
    pattern: Pattern, inputs: int, outputs: int, batch: int, sparsity: float, skew: float, device: str, dtype: str
) -> Problem:
    weight, bias, x, output_grad = _tensors(inputs, outputs, batch, device, dtype)
    return Problem(weight, _mask(pattern, inputs, outputs, sparsity, skew, device), bias, x, output_grad)


@lru_cache(maxsize=8)  # the layers of one shape, and its gate's smaller batches: cases of one shape follow one another
def _tensors(inputs: int, outputs: int, batch: int, device: str, dtype: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    number_type = getattr(torch, dtype)
    [(weight, bias)] = convert(draw((inputs, outputs), generator), device, number_type)
    x = torch.randn(batch, inputs, generator=generator).to(device, number_type)
    output_grad = torch.randn(batch, outputs, generator=generator).to(device, number_type)
    return weight, bias, x, output_grad


@lru_cache(maxsize=32)  # as many sparsities; a mask is small beside what it masks
def _mask(pattern: Pattern, inputs: int, outputs: int, sparsity: float, skew: float, device: str) -> Tensor:
    generator, shape = torch.Generator().manual_seed(1), torch.Size((outputs, inputs))
    score = skewed_score(shape, sparsity, skew, generator, device) if skew else random_score(shape, generator, device)
    return pattern.from_score(score, sparsity)


@lru_cache(maxsize=8)
def _definition(pattern: Pattern, key: _Key) -> Definition:
    return define(_problem(pattern, *key))


@remembered
def _gate_failure(layer: str, key: _Key, layout: str, threads: int) -> str | None:  # noqa: ARG001  # torch is set to them
    """Return why the layer fails its gate, or None if it passes: found out once a run, whatever the operation."""
    pattern = LAYERS[layer].pattern
    problem = _problem(pattern, *key)
    try:
        gate(LAYERS[layer], problem._replace(x=as_layout(problem.x, layout)), _definition(pattern, key))
    except GateError as error:
        return str(error)
    return None


@remembered
def _chain_failure(layer: str, keys: list[_Key], threads: int) -> str | None:  # noqa: ARG001  # torch is set to them
    """Return why the layer's fused step fails its gate, or None if it passes or there is none."""
    parts = [_problem(LAYERS[layer].pattern, *key) for key in keys]
    try:
        gate_chain(list(build(layer, parts)), parts[0].x, _labels(parts))
    except GateError as error:
        return str(error)
    return None


def pass_gate(case: Case, layer: str, layout: str) -> None:
    """Raise GateError, before anything is timed, unless `layer` agrees with its definition at every size of its shape."""
    for key in _keys(case, layer, GATE_ROWS):
        failure = _gate_failure(layer, key, layout, case.threads)
        if failure is not None:
            raise GateError(failure)
    if case.op in ("training_step", "train"):
        failure = _chain_failure(layer, _keys(case, layer, GATE_ROWS), case.threads)
        if failure is not None:
            raise GateError(failure)


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
    if op in OPERATIONS:
        return OPERATIONS[op](model, parts, layout)
    x = as_layout(parts[0].x, layout).detach().requires_grad_(len(parts) == 1)
    grad = as_layout(parts[-1].output_grad, layout)
    network = _network(model)
    if op == "forward":

        def forward() -> Tensor:
            with torch.no_grad():
                return network(x)  # type: ignore[no-any-return]  # Module.__call__ is untyped

        return forward
    if op == "training_forward":
        return lambda: network(x)
    if op == "backward":
        output = network(x)
        inputs = [tensor for tensor in (x, *model.parameters()) if tensor.requires_grad]
        return lambda: torch.autograd.grad(output, inputs, grad, retain_graph=True)
    optimizer = _optimizer(model)

    def step() -> None:
        optimizer.zero_grad()
        x.grad = None
        network(x).backward(grad)
        optimizer.step()

    return step


def _network(model: MLP) -> torch.nn.Module:
    """Return a single layer itself: the container around it would add the same microseconds to both arms."""
    layers = list(model)
    return layers[0] if len(layers) == 1 else model


def _optimizer(model: MLP) -> torch.optim.Optimizer:
    # So small a learning rate that thousands of steps on one gradient leave the weights in the range they came from.
    return OPTIMIZERS["adam"](model.parameters(), lr=1e-6)


def _input_gradient(model: MLP, parts: list[Problem], layout: str) -> Callable[[], object]:
    """Every input gradient of a step, ReLU's included; weights that ask for none are given none."""
    model.requires_grad_(requires_grad=False)
    x = as_layout(parts[0].x, layout)
    first, *rest = model
    start = (x if not rest else first(x)).detach().requires_grad_()
    output = first(start) if not rest else MLP(rest)(torch.relu(start))
    grad = as_layout(parts[-1].output_grad, layout)
    return lambda: torch.autograd.grad(output, start, grad, retain_graph=True)


def _weight_gradient(model: MLP, parts: list[Problem], layout: str) -> Callable[[], object]:
    """The gradients of all weights and biases, layer by layer, from inputs that ask for none."""
    layers = list(model)
    outputs = [layer(as_layout(part.x, layout)) for layer, part in zip(layers, parts, strict=True)]
    grads = [as_layout(part.output_grad, layout) for part in parts]

    def gradients() -> list[tuple[Tensor, ...]]:
        return [
            torch.autograd.grad(output, list(layer.parameters()), grad, retain_graph=True)
            for layer, output, grad in zip(layers, outputs, grads, strict=True)
        ]

    return gradients


def _training_step(model: MLP, parts: list[Problem], layout: str) -> Callable[[], object]:
    """A step of the one training loop, on labels drawn at random."""
    x, labels, optimizer = as_layout(parts[0].x, layout), _labels(parts), _optimizer(model)
    return lambda: training_step(model, x, labels, optimizer)


def _labels(parts: list[Problem]) -> Tensor:
    batch, classes = parts[-1].output_grad.shape
    return torch.randint(classes, (batch,), generator=torch.Generator().manual_seed(2)).to(parts[0].x.device)


def _optimizer_step(model: MLP, parts: list[Problem], layout: str) -> Callable[[], object]:
    """The optimizer alone, on the gradients of one backward pass."""
    optimizer = _optimizer(model)
    _network(model)(as_layout(parts[0].x, layout)).backward(as_layout(parts[-1].output_grad, layout))
    return optimizer.step


OPERATIONS = {
    "input_gradient": _input_gradient,
    "weight_gradient": _weight_gradient,
    "optimizer": _optimizer_step,
    "training_step": _training_step,
}


REFERENCE_OPS = {"beside": "forward", "update": "step"}  # what dense does meanwhile, where it is not the case's own operation


def dense_case(case: Case) -> Case:
    """Return the case of the dense reference: what dense does beside the case, in the case's regime."""
    op = REFERENCE_OPS.get(case.op, case.op)
    return case._replace(op=op, model="dense", layer="dense", update="static", sparsity=0.0, skew=0.0)


def way_key(reference: Case) -> str:
    """Return by what name a process knows the way in which a dense reference is fastest."""
    return f"fastest way {reference}"


class Reference(NamedTuple):
    """What a case is timed against: dense at its best."""

    work: Callable[[], object]
    layers: MLP
    layout: str  # or COMPILED
    gain: float  # the first layout's time over this one's, as the search for the fastest found it

    @property
    def facts(self) -> dict[str, Any]:
        """What the row says of it."""
        return {"dense_layout": self.layout, "dense_layout_gain": self.gain}


def dense_reference(case: Case) -> Reference:
    """Return the dense layers of the case's shape at the reference's operation, gated, in the way in which they are fastest.

    The way is that of `bench.ways`; without a run's search for it, as where every body is run once, the first of the layouts.
    """
    reference = dense_case(case)
    way, gain = MEMO.get(way_key(reference), (LAYOUTS[0], 1.0))
    pass_gate(reference, "dense", LAYOUTS[0] if way == COMPILED else way)
    return Reference(*dense_work(way, reference), way, gain)


def dense_work(way: str, reference: Case) -> tuple[Callable[[], object], MLP]:
    """Return the operation of a dense reference in one of the ways there are, and its layers."""
    if way == COMPILED:
        return compiled_step(reference.shape, reference.device, reference.dtype, reference.threads)
    parts = problems(reference, "dense")
    model = build("dense", parts)
    return operation(reference.op, model, parts, way), model


def can_compile() -> bool:
    """Tell whether torch.compile is wanted (TORCH_COMPILE_DISABLE) and finds a C++ compiler on this machine."""
    return os.environ.get("TORCH_COMPILE_DISABLE") != "1" and any(map(shutil.which, [os.environ.get("CXX", "g++"), "clang++"]))


@lru_cache(maxsize=2)  # compiled code is loaded in a second or two, and cases of one shape follow one another
def compiled_step(shape: str, device: str, dtype: str, threads: int) -> tuple[Callable[[], object], MLP]:
    """Return a dense step of the one training loop whose loss is compiled, checked against the definition, and its layers."""
    parts = problems(Case("training_step", "dense", "dense", "static", shape, 0.0, device, dtype, threads), "dense")
    model = build("dense", parts)
    x, labels, optimizer = parts[0].x, _labels(parts), _optimizer(model)
    # Past its limit of shapes for one piece of code, eight as it comes, dynamo would run it eagerly and say nothing.
    dynamo: Any = importlib.import_module("torch._dynamo.config")  # here, because it takes as long as all of torch
    dynamo.recompile_limit, dynamo.fail_on_recompile_limit_hit = 256, True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's compiler uses what PyTorch says not to use
        loss_of = torch.compile(model.cross_entropy, dynamic=False)
        gate_loss(list(model), loss_of(x, labels), x, labels)

    def step() -> Tensor:
        return training_step(model, x, labels, optimizer, loss_of=loss_of)

    return step, model
