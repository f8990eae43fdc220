"""From a problem to what a sparse layer must make of it: values in float64, and how far rounding may lead from each."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from sparse_models.testing.sample import Part, sample


class Problem(NamedTuple):
    """What a layer is built from and fed: x [batch, in] and the gradient of its output [batch, out]."""

    weight: Tensor  # [out, in]
    mask: Tensor  # [out, in], True = kept
    bias: Tensor | None  # [out]
    x: Tensor
    output_grad: Tensor


class Term(NamedTuple):
    """Values by definition, in float64, and the largest error allowed at each: of a whole matrix, or of a part of one."""

    value: Tensor
    allowed: Tensor
    dtype: torch.dtype  # that the layer must answer in
    part: Part | None = None

    @property
    def shape(self) -> list[int]:
        """The shape of the whole."""
        part = self.part
        return [part.size if part is not None and dim == part.dim else size for dim, size in enumerate(self.value.shape)]


class Definition(NamedTuple):
    """Output, input gradient, and weight and bias after one step of gradient descent at learning rate 1.

    Of a large weight they are told at a sample of its rows and columns: the outputs of these rows, the input gradients of these
    columns, and the weights of both.
    """

    output: Term
    input_grad: Term
    weight: list[Term]
    bias: Term | None


def define(problem: Problem) -> Definition:
    """Return what y = x (W * M)^T + b means for `problem`, computed by dense products in float64."""
    bias = None if problem.bias is None else _bias_term(problem, problem.bias)
    parts = sample(problem.weight)
    if parts is not None:
        rows, columns = parts
        return Definition(
            output=_at(rows.turned(), problem.x, problem.weight.t(), problem.mask.t(), problem.bias),
            input_grad=_at(columns, problem.output_grad, problem.weight, problem.mask),
            weight=[_weights_at(part.cut(), problem) for part in parts],
            bias=bias,
        )
    dtype = problem.x.dtype
    w, x, g = (tensor.detach().double() for tensor in (problem.weight * problem.mask, problem.x, problem.output_grad))
    return Definition(
        output=_term(x, w.t(), dtype, plus=_double(problem.bias)),
        input_grad=_term(g, w, dtype),
        weight=[_term(-g.t(), x, dtype, plus=w, mask=problem.mask)],
        bias=bias,
    )


def define_output(problem: Problem) -> Term:
    """Return what y = x (W * M)^T + b means, and nothing of a step: all of it or, of a large weight, a sample."""
    parts = sample(problem.weight)
    if parts is not None:
        return _at(parts[0].turned(), problem.x, problem.weight.t(), problem.mask.t(), problem.bias)
    weight = (problem.weight * problem.mask).detach().double()
    return _term(problem.x.double(), weight.t(), problem.x.dtype, plus=_double(problem.bias))


def _at(columns: Part, left: Tensor, weight: Tensor, mask: Tensor, plus: Tensor | None = None) -> Term:
    """Return left @ (weight * mask) + plus at some columns, a few at a time."""
    weight, plus, factor, dtype = weight.detach(), _double(plus), left.detach().double(), left.dtype
    terms = [
        _term(factor, (part.of(weight) * part.of(mask)).double(), dtype, None if plus is None else plus[part.places])
        for part in columns.pieces(len(weight))
    ]
    value, allowed = (torch.cat(parts, dim=1) for parts in zip(*((term.value, term.allowed) for term in terms), strict=True))
    return Term(value, allowed, dtype, columns)


def _weights_at(part: Part, problem: Problem) -> Term:
    """Return the weights after one step in some rows or columns."""
    x, g, mask = problem.x.detach(), problem.output_grad.detach(), part.of(problem.mask)
    left, right = (part.turned().of(g), x) if part.dim == 0 else (g, part.of(x))
    plus = (part.of(problem.weight.detach()) * mask).double()
    return _term(-left.double().t(), right.double(), x.dtype, plus, mask)._replace(part=part)


def _bias_term(problem: Problem, bias: Tensor) -> Term:
    g = problem.output_grad.detach().double()
    return _term(-g.t(), torch.ones_like(g[:, :1]), problem.x.dtype, plus=bias.detach().double()[:, None])


def _double(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().double()


def _term(left: Tensor, right: Tensor, dtype: torch.dtype, plus: Tensor | None = None, mask: Tensor | None = None) -> Term:
    """Return left @ right + plus, under the mask, and what rounding may do to it in `dtype`.

    A sum of n products is off by a few sqrt(n) units of the last place of the accumulator (Higham and Mary 2019), relative
    to the norms of its factors, and by a few units of the result's own dtype.
    """
    accumulator = torch.finfo(torch.promote_types(dtype, torch.float32)).eps
    last_place = torch.finfo(dtype).tiny * torch.finfo(dtype).eps  # below the smallest normal number, of which float16 has many
    value = left @ right
    norms = left.norm(dim=1, keepdim=True) * (8 * math.sqrt(left.shape[1]) * accumulator)
    allowed = torch.addcmul(value.abs().mul_(4 * torch.finfo(dtype).eps), norms, right.norm(dim=0, keepdim=True))
    allowed += 4 * last_place
    if plus is not None:
        value += plus
        allowed += 4 * torch.finfo(dtype).eps * plus.abs()
    return Term(value, allowed, dtype) if mask is None else Term(value.mul_(mask), allowed.mul_(mask), dtype)
