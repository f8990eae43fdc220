"""torch.sparse at its best: CSR weights, feature-major products, and a weight gradient only at the non-zeros."""

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sparse_models.layers._csr_storage import CsrBothWays
from sparse_models.registry import register_layer


@register_layer("csr")
class Csr(CsrBothWays):
    """CSR weights with the transposed structure kept beside them, so that no product converts anything.

    Takes any strides; fastest with feature-major input ([in, batch] contiguous), and returns feature-major output.
    """

    layout: ClassVar[str] = "feature-major"

    def product(self, x: Tensor) -> Tensor:
        """Return x W^T + b [batch, out], feature-major."""
        rows = (self.row_pointers, self.columns, (self.out_features, self.in_features))
        if not torch.is_grad_enabled():  # entering autograd costs more than the product of a small batch
            return _feature_major(x.t().contiguous(), self.values, self.bias, rows).t()
        columns = (self.column_pointers, self.rows, (self.in_features, self.out_features))
        result: Tensor = _CsrProduct.apply(x, self.values, self.bias, rows, columns, self.transposition)  # type: ignore[no-untyped-call]
        return result


# pointers, indices, shape
_Structure = tuple[Tensor, Tensor, tuple[int, int]]


def _matrix(structure: _Structure, values: Tensor) -> Tensor:
    pointers, indices, shape = structure
    return torch.sparse_csr_tensor(pointers, indices, values, shape, check_invariants=False)


def _product(matrix: Tensor, x_t: Tensor) -> Tensor:
    # For a batch of 1 the matrix-vector kernel takes half the time of the matrix product.
    return torch.mv(matrix, x_t[:, 0])[:, None] if x_t.shape[1] == 1 else torch.mm(matrix, x_t)


def _feature_major(x_t: Tensor, values: Tensor, bias: Tensor | None, rows: _Structure) -> Tensor:
    y_t = _product(_matrix(rows, values), x_t)  # [out, in] @ [in, batch]
    if bias is not None:
        y_t += bias[:, None]
    return y_t


class _CsrProduct(torch.autograd.Function):
    """y^T = W x^T + b, dx^T = W^T dy^T, and dW sampled at the non-zeros of W; all activations feature-major.

    The structures travel with the graph, so that a mask may move between a forward pass and its backward.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, values: Tensor, bias: Tensor | None, rows: _Structure, columns: _Structure, transposition: Tensor
    ) -> Tensor:
        x_t = x.t().contiguous()  # [in, batch]
        y_t = _feature_major(x_t, values, bias, rows)  # [out, batch]
        ctx.save_for_backward(x_t, values.detach())  # the parameter itself may be given other data when the mask moves
        ctx.structures = rows, columns, transposition
        return y_t.t()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x_t, values = ctx.saved_tensors
        rows, columns, transposition = ctx.structures
        grad_t = grad.t().contiguous()  # [out, batch]
        x_needed, values_needed, bias_needed, *_ = ctx.needs_input_grad
        x_grad = _product(_matrix(columns, values.index_select(0, transposition)), grad_t).t() if x_needed else None
        values_grad = None
        if values_needed:
            # The sampled product adds beta * values, so a zero pattern keeps infinite values out of the gradient.
            pattern = _matrix(rows, torch.zeros_like(values))
            values_grad = torch.sparse.sampled_addmm(pattern, grad_t, x_t.t(), beta=0.0).values()
        return x_grad, values_grad, grad_t.sum(1) if bias_needed else None, None, None, None
