"""The definition of a sparse layer, and the gate that every layer must pass before anything is timed with it."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from sparse_models.errors import GateError
from sparse_models.layers import SparseLinear
from sparse_models.masks import random_score
from sparse_models.models import MLP


class Problem(NamedTuple):
    """What a layer is built from and fed: x [batch, in] and the gradient of its output [batch, out]."""

    weight: Tensor  # [out, in]
    mask: Tensor  # [out, in], True = kept
    bias: Tensor | None  # [out]
    x: Tensor
    output_grad: Tensor


class Term(NamedTuple):
    """A value by definition, in float64, and the largest error allowed at each entry."""

    value: Tensor
    allowed: Tensor
    dtype: torch.dtype  # that the layer must answer in


class Definition(NamedTuple):
    """Output, input gradient, and weight and bias after one step of gradient descent at learning rate 1."""

    output: Term
    input_grad: Term
    weight: Term
    bias: Term | None


def define(problem: Problem) -> Definition:
    """Return what y = x (W * M)^T + b means for `problem`, computed by dense products in float64."""
    dtype = problem.x.dtype
    w, x, g = (tensor.detach().double() for tensor in (problem.weight * problem.mask, problem.x, problem.output_grad))
    b = None if problem.bias is None else problem.bias.detach().double()
    return Definition(
        output=_output(problem.x, problem.weight * problem.mask, problem.bias),
        input_grad=_term(g, w, dtype),
        weight=_term(-g.t(), x, dtype, plus=w, mask=problem.mask),
        bias=None if b is None else _term(-g.t(), torch.ones_like(x[:, :1]), dtype, plus=b[:, None]),
    )


def _output(x: Tensor, weight: Tensor, bias: Tensor | None) -> Term:
    return _term(x.double(), weight.detach().double().t(), x.dtype, plus=None if bias is None else bias.detach().double())


def _term(left: Tensor, right: Tensor, dtype: torch.dtype, plus: Tensor | None = None, mask: Tensor | None = None) -> Term:
    """Return left @ right + plus, under the mask, and what rounding may do to it in `dtype`.

    A sum of n products is off by a few sqrt(n) units of the last place of the accumulator (Higham and Mary 2019), relative
    to the norms of its factors, and by a few units of the result's own dtype.
    """
    accumulator = torch.finfo(torch.promote_types(dtype, torch.float32)).eps
    last_place = torch.finfo(dtype).tiny * torch.finfo(dtype).eps  # below the smallest normal number, of which float16 has many
    norms = left.norm(dim=1, keepdim=True) * right.norm(dim=0, keepdim=True)
    value = left @ right
    allowed = 8 * math.sqrt(left.shape[1]) * accumulator * norms + 4 * torch.finfo(dtype).eps * value.abs() + 4 * last_place
    if plus is not None:
        value = value + plus
        allowed = allowed + 4 * torch.finfo(dtype).eps * plus.abs()
    return Term(value, allowed, dtype) if mask is None else Term(value * mask, allowed * mask, dtype)


@contextlib.contextmanager
def exact_products() -> Iterator[None]:
    """Have a GPU's dense products computed from all bits of their factors, and summed in float32.

    As PyTorch comes, cuBLAS may add up parts of a 16-bit product in 16 bits, which is no definition to hold anything against.
    """
    products: Any = torch.backends.cuda.matmul
    exact = {"fp32_precision": "ieee"}
    exact |= dict.fromkeys(("allow_bf16_reduced_precision_reduction", "allow_fp16_reduced_precision_reduction"), False)  # type: ignore[arg-type]
    before = {name: getattr(products, name) for name in exact}
    for name, value in exact.items():
        setattr(products, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(products, name, value)


@exact_products()
def gate(layer_class: type[SparseLinear], problem: Problem, definition: Definition | None = None) -> None:
    """Raise GateError unless a layer of `layer_class` does on `problem` what the definition says.

    Compared are the weights held, the output, the input gradient, weights and bias after one optimizer step, exact zeros
    outside the mask, and all of it again, for a part of the batch and in the other layout, under another mask of as many
    non-zeros. `definition` may be passed where several layers are held against the same problem.
    """
    layer = layer_class(problem.weight, problem.mask, problem.bias)
    _require(layer_class, "weights held", holds=torch.equal(layer.to_dense(), problem.weight * problem.mask))
    _check_step(layer, problem, define(problem) if definition is None else definition, input_gradient=True)

    held = layer.to_dense()
    density = int(problem.mask.sum()) / problem.mask.numel()
    for seed in range(10):  # drawn until it is another one; where every weight is kept, there is none
        score = random_score(held.shape, torch.Generator(held.device).manual_seed(seed)) + ~problem.mask / 2
        mask = layer.pattern.from_score(score, 1 - density)
        if not torch.equal(mask, problem.mask):
            break
    # Moving a mask has nothing to do with the batch; but a GPU's kernels are compiled for one, and another would be another's.
    rows = len(problem.x) if problem.x.is_cuda else 64
    moved = Problem(
        weight=held,
        mask=mask,
        bias=None if layer.bias is None else layer.bias.detach().clone(),
        x=_other_layout(problem.x[:rows]),
        output_grad=_other_layout(problem.output_grad[:rows]),
    )
    layer.set_mask(moved.mask)
    # Grown weights start at 0: what the layer holds now is what it held under both masks.
    _require(layer_class, "weights held after the mask moved", holds=torch.equal(layer.to_dense(), held * moved.mask))
    _check_step(layer, moved, define(moved), input_gradient=False)


def gate_chain(layers: Sequence[SparseLinear], x: Tensor, labels: Tensor) -> None:
    """Raise GateError unless the layers' fused cross-entropy, where they have one, is what goes layer by layer in float64."""
    loss = layers[0].chain_cross_entropy(list(layers), x, labels)
    if loss is not None:
        gate_loss(layers, loss, x, labels)


@exact_products()
def gate_loss(layers: Sequence[SparseLinear], loss: Tensor, x: Tensor, labels: Tensor) -> None:
    """Raise GateError unless a loss of the layers, with its graph, is their cross-entropy layer by layer in float64.

    Compared are loss and the gradient of every parameter, each to half the digits of its dtype in norm: where rounding decides
    on which side of ReLU's corner a number lies, single entries may differ by a sample's share.
    """
    model = MLP(layers)
    weights = [layer.to_dense().double().requires_grad_() for layer in layers]
    biases = [None if layer.bias is None else layer.bias.detach().double().requires_grad_() for layer in layers]
    hidden = x.double()
    for number, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        hidden = functional.linear(torch.relu(hidden) if number else hidden, weight, bias)
    defined = functional.cross_entropy(hidden, labels)
    expected = [defined]
    for layer, weight, bias in zip(layers, weights, biases, strict=True):
        expected.append(layer.pack(_gradient(defined, weight).to(x.dtype)))
        expected += [] if bias is None else [_gradient(defined, bias)]
    found = [loss, *torch.autograd.grad(loss, list(model.parameters()))]
    for what, own, its in zip(["loss", *(key for key, _ in model.named_parameters())], found, expected, strict=True):
        error = float((own.detach().double() - its.detach()).norm())
        allowed = math.sqrt(torch.finfo(x.dtype).eps) * float(its.detach().norm())
        _require(type(layers[0]), f"{what} of the fused step", holds=error <= allowed)


def _gradient(loss: Tensor, of: Tensor) -> Tensor:
    return torch.autograd.grad(loss, of, retain_graph=True)[0]


def _check_step(layer: SparseLinear, problem: Problem, definition: Definition, *, input_gradient: bool) -> None:
    """Check a step whose weight gradients come from a pass that does, or does not, compute an input gradient as well."""
    layer_class = type(layer)
    x = problem.x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    optimizer.zero_grad()
    output = layer(x)
    _require_close(layer_class, "output", output, definition.output)
    output.backward(problem.output_grad)
    _require_close(layer_class, "input gradient", x.grad, definition.input_grad)
    _require(layer_class, "input unchanged by the layer", holds=torch.equal(x, problem.x))
    if not input_gradient:
        optimizer.zero_grad()
        layer(problem.x).backward(problem.output_grad)
    optimizer.step()
    held, bias = layer.to_dense(), None if layer.bias is None else layer.bias.detach()
    _require_close(layer_class, "weights after one step", held, definition.weight)
    if definition.bias is not None:
        _require_close(layer_class, "bias after one step", None if bias is None else bias[:, None], definition.bias)
    # Zeros outside the mask in `to_dense` may be a view of weights that are not: neither stored nor used ones may be there.
    _require(layer_class, "nothing outside the mask", holds=torch.equal(layer.pack(held), layer.values.detach()))
    _require(layer_class, "mask", holds=torch.equal(layer.mask, problem.mask))
    with torch.no_grad():  # as inference runs it
        output = layer.eval()(problem.x)
    layer.train()
    _require_close(layer_class, "output after one step, without gradients", output, _output(problem.x, held, bias))


def _other_layout(x: Tensor) -> Tensor:
    return x.t().contiguous().t() if x.is_contiguous() else x.contiguous()


def _require_close(layer_class: type[SparseLinear], what: str, actual: Tensor | None, term: Term) -> None:
    if actual is None or actual.shape != term.value.shape or actual.dtype != term.dtype:
        shape = None if actual is None else f"{list(actual.shape)} of {actual.dtype}"
        raise GateError(
            f"{layer_class.__name__}: {what}: expected shape {list(term.value.shape)} of {term.dtype}, "
            f"got {shape}; nothing is timed"
        )
    error = (actual.detach().double() - term.value).abs()
    if not bool((error <= term.allowed).all()):  # written so that NaN fails
        worst = int((error - term.allowed).nan_to_num(math.inf).argmax())
        raise GateError(
            f"{layer_class.__name__}: {what}: expected {term.value.flatten()[worst]:.6g} by the definition, "
            f"got {actual.detach().flatten()[worst]:.6g}, more than rounding explains; nothing is timed"
        )


def _require(layer_class: type[SparseLinear], what: str, *, holds: bool) -> None:
    if not holds:
        raise GateError(f"{layer_class.__name__}: {what}: expected what the definition says, got another; nothing is timed")
