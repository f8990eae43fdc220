"""The gate that every layer must pass before anything is timed with it."""

import zlib

import torch
from torch import Tensor

from sparse_models.layers import SparseLinear
from sparse_models.masks import random_score
from sparse_models.testing.definition import Definition, Problem, Term, define, define_output
from sparse_models.testing.exact import exact_products
from sparse_models.testing.refusals import require, require_close
from sparse_models.testing.sample import row_pieces


@exact_products()
def gate(layer_class: type[SparseLinear], problem: Problem, definition: Definition | None = None) -> None:
    """Raise GateError unless a layer of `layer_class` does on `problem` what the definition says.

    Compared are the weights held, the output, the input gradient, weights and bias after one optimizer step, exact zeros
    outside the mask, and all of it again, for a part of the batch and in the other layout, under another mask of as many
    non-zeros. `definition` may be passed where several layers are held against the same problem. Of a large weight, outputs,
    gradients and the step are compared at the sample of rows and columns that the definition tells of, all else everywhere.
    """
    layer = layer_class(problem.weight, problem.mask, problem.bias)
    require(layer_class, "weights held", holds=_is_masked(layer.to_dense(), problem.weight, problem.mask))
    _check_step(layer, problem, define(problem) if definition is None else definition, input_gradient=True)

    mask = _another_mask(layer, problem.mask)
    # Grown weights start at 0: what the layer will hold is what it holds now under both masks, of which no copy is kept.
    expected = _fingerprints(layer.to_dense(), mask)
    layer.set_mask(mask)
    held = layer.to_dense()
    require(layer_class, "weights held after the mask moved", holds=_fingerprints(held) == expected)
    # Moving a mask has nothing to do with the batch; but a GPU's kernels are compiled for one, and another would be another's.
    rows = len(problem.x) if problem.x.is_cuda else 64
    bias = None if layer.bias is None else layer.bias.detach().clone()
    moved = Problem(held, mask, bias, _other_layout(problem.x[:rows]), _other_layout(problem.output_grad[:rows]))
    definition = define(moved)
    moved = moved._replace(weight=held[:0].clone())  # what is to be known of it, the definition tells
    del held
    _check_step(layer, moved, definition, input_gradient=False)


def _another_mask(layer: SparseLinear, mask: Tensor) -> Tensor:
    """Return a mask of the layer's pattern and of as many units; where all or none are kept, there is no other."""
    another, kept = mask, int(mask.count_nonzero())
    if kept in (0, mask.numel()):
        return mask
    sparsity = layer.pattern.sparsity_of(mask)
    for seed in range(10):
        score = random_score(mask.shape, torch.Generator(mask.device).manual_seed(seed), dtype=torch.float32)
        for rows in row_pieces(mask.shape):
            score[rows] += ~mask[rows] / 2
        another = layer.pattern.from_score(score, sparsity)
        if not torch.equal(another, mask):
            break
    return another


def _is_masked(found: Tensor, weight: Tensor, mask: Tensor) -> bool:
    """Tell whether a tensor is exactly the weight under the mask."""
    if (found.shape, found.dtype) != (weight.shape, weight.dtype):
        return False
    return all(torch.equal(found[rows], weight[rows] * mask[rows]) for rows in row_pieces(weight.shape))


def _fingerprints(weight: Tensor, mask: Tensor | None = None) -> list[int]:
    """Return a number for each few rows of a weight, under a mask if there is one; one sign of 0 is as good as the other."""
    pieces = (weight[rows] if mask is None else weight[rows] * mask[rows] for rows in row_pieces(weight.shape))
    return [zlib.crc32((piece + 0.0).cpu().contiguous().view(torch.uint8).numpy().tobytes()) for piece in pieces]


def _check_step(layer: SparseLinear, problem: Problem, definition: Definition, *, input_gradient: bool) -> None:
    """Check a step whose weight gradients come from a pass that does, or does not, compute an input gradient as well."""
    layer_class = type(layer)
    x = problem.x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    optimizer.zero_grad()
    output = layer(x)
    require_close(layer_class, "output", output, definition.output)
    output.backward(problem.output_grad)
    require_close(layer_class, "input gradient", x.grad, definition.input_grad)
    require(layer_class, "input unchanged by the layer", holds=torch.equal(x, problem.x))
    del output, x
    if not input_gradient:
        optimizer.zero_grad()
        layer(problem.x).backward(problem.output_grad)
    optimizer.step()
    optimizer.zero_grad()
    inference = _check_weights(layer, problem, definition)
    with torch.no_grad():  # as inference runs it
        found = layer.eval()(problem.x)
    layer.train()
    require_close(layer_class, "output after one step, without gradients", found, inference)


def _check_weights(layer: SparseLinear, problem: Problem, definition: Definition) -> Term:
    """Check what a layer holds after the step, and return what it must put out now."""
    layer_class, mask = type(layer), problem.mask
    held, bias = layer.to_dense(), None if layer.bias is None else layer.bias.detach()
    for term in definition.weight:
        require_close(layer_class, "weights after one step", held, term)
    if definition.bias is not None:
        require_close(layer_class, "bias after one step", None if bias is None else bias[:, None], definition.bias)
    # Zeros outside the mask in `to_dense` may be a view of weights that are not: neither stored nor used ones may be there.
    is_zero = not any(held[rows].masked_fill(mask[rows], 0).any() for rows in row_pieces(mask.shape))
    is_all = torch.equal(layer.pack(held), layer.values.detach())
    require(layer_class, "nothing outside the mask", holds=is_zero and is_all)
    inference = define_output(problem._replace(weight=held, bias=bias))
    del held
    require(layer_class, "mask", holds=torch.equal(layer.mask, mask))
    return inference


def _other_layout(x: Tensor) -> Tensor:
    return x.t().contiguous().t() if x.is_contiguous() else x.contiguous()
