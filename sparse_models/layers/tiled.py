"""Kernels of our own: CSR weights, a tile of the batch at a time, sums in registers, and nothing done outside the non-zeros."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sparse_models.errors import InputError
from sparse_models.kernels import chain, tiled
from sparse_models.kernels.chain import Link
from sparse_models.kernels.tiled import Structure
from sparse_models.layers._base import SparseLinear
from sparse_models.layers._csr_storage import CsrBothWays
from sparse_models.registry import register_layer


@register_layer("tiled")
class Tiled(CsrBothWays):
    """CSR weights multiplied by compiled kernels on torch's own threads (sparse_models.kernels.tiled).

    Takes any strides; fastest with feature-major input ([in, batch] contiguous), and returns feature-major output, so that
    in a chain of such layers nothing is transposed.
    """

    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    layout: ClassVar[str] = "feature-major"

    def index(self, mask: Tensor) -> None:
        """Store the structure of `mask` [out, in]; raises InputError where 32-bit indices do not hold it."""
        super().index(mask)
        if self.columns.dtype != torch.int32:
            raise InputError(
                f"Tiled: expected fewer than {2**31} rows, columns and non-zeros, got {mask.numel()} weights with "
                f"{self.columns.numel()} non-zeros; split the layer"
            )

    def product(self, x: Tensor) -> Tensor:
        """Return x W^T + b [batch, out], feature-major."""
        rows = Structure(self.row_pointers, self.columns, self.in_features)
        if not torch.is_grad_enabled():  # entering autograd costs more than the product of a small batch
            return tiled.product(rows, self.values, x.t().contiguous(), self.bias).t()
        columns = Structure(self.column_pointers, self.rows, self.out_features)
        result: Tensor = _TiledProduct.apply(x, self.values, self.bias, rows, columns, self.transposition)  # type: ignore[no-untyped-call]
        return result

    @classmethod
    def chain_cross_entropy(cls, layers: Sequence[SparseLinear], x: Tensor, labels: Tensor) -> Tensor | None:
        """Return the mean cross-entropy of a chain of such layers, whose gradients come from the same pass; see base class."""
        if x.requires_grad or not all(isinstance(layer, Tiled) for layer in layers):
            return None
        links = [layer.link() for layer in layers if isinstance(layer, Tiled)]
        parameters = [*(layer.values for layer in layers), *(layer.bias for layer in layers)]
        result: Tensor = _ChainCrossEntropy.apply(links, x, labels, *parameters)  # type: ignore[no-untyped-call]
        return result

    def link(self) -> Link:
        """Return the layer as a fused kernel takes it."""
        values = self.values.detach()
        return Link(
            Structure(self.row_pointers, self.columns, self.in_features),
            Structure(self.column_pointers, self.rows, self.out_features),
            values,
            values.index_select(0, self.transposition),
            None if self.bias is None else self.bias.detach(),
        )


class _ChainCrossEntropy(torch.autograd.Function):
    """Loss and gradients in one pass, so that there is nothing left to do on the way back."""

    @staticmethod
    def forward(ctx: Any, links: list[Link], x: Tensor, labels: Tensor, *parameters: Tensor | None) -> Tensor:
        found = chain.gradients(links, x, labels)
        ctx.gradients = [
            None if parameter is None else gradient
            for parameter, gradient in zip(parameters, [*found.values, *found.biases], strict=True)
        ]
        return found.loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # In a training the loss is what is differentiated, and its own gradient 1: six small products less.
        factor = float(grad)
        return (
            None,
            None,
            None,
            *(gradient if gradient is None or factor == 1 else gradient * factor for gradient in ctx.gradients),
        )


class _TiledProduct(torch.autograd.Function):
    """y^T = W x^T + b, dx^T = W^T dy^T, and dW at the non-zeros of W; all activations feature-major.

    The structures travel with the graph, so that a mask may move between a forward pass and its backward.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, values: Tensor, bias: Tensor | None, rows: Structure, columns: Structure, transposition: Tensor
    ) -> Tensor:
        x_t = x.t().contiguous()  # [in, batch]
        ctx.save_for_backward(x_t, values.detach())  # the parameter itself may be given other data when the mask moves
        ctx.structures = rows, columns, transposition
        return tiled.product(rows, values, x_t, bias).t()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x_t, values = ctx.saved_tensors
        rows, columns, transposition = ctx.structures
        grad_t = grad.t().contiguous()  # [out, batch]
        x_needed, values_needed, bias_needed, *_ = ctx.needs_input_grad
        x_grad = tiled.product(columns, values.index_select(0, transposition), grad_t).t() if x_needed else None
        values_grad = tiled.sampled(rows, grad_t, x_t) if values_needed else None
        return x_grad, values_grad, grad_t.sum(1) if bias_needed else None, None, None, None
