"""Kernels of our own: CSR weights, a tile of the batch at a time, sums in registers, and nothing done outside the non-zeros."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sparse_models.errors import InputError
from sparse_models.kernels import chain, tiled
from sparse_models.kernels.link import Link
from sparse_models.kernels.permute import permuted
from sparse_models.kernels.transpose import transposed
from sparse_models.layers._base import INPUT_GRADIENT, SparseLinear, register_layer
from sparse_models.layers._csr_storage import CsrBothWays

SHORT = 2**15  # up to so many rows or columns 16 bits number them
NUMBERS = (torch.float32, torch.float64)


@register_layer("tiled")
class Tiled(CsrBothWays):
    """CSR weights multiplied by compiled kernels on torch's own threads (sparse_models.kernels.tiled).

    Takes any strides; fastest with feature-major input ([in, batch] contiguous), and returns feature-major output, so that
    in a chain of such layers nothing is transposed.
    """

    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    dtypes: ClassVar[tuple[str, ...]] = tuple(str(number).removeprefix("torch.") for number in NUMBERS)

    def index(self, mask: Tensor) -> None:
        """Store the structure of `mask` [out, in]; raises InputError where 32-bit indices do not hold it."""
        super().index(mask)
        if self.columns.dtype != torch.int32:
            raise InputError(
                f"Tiled: expected fewer than {2**31} rows, columns and non-zeros, got {mask.numel()} weights with "
                f"{self.columns.numel()} non-zeros; split the layer"
            )

        self.columns, self.rows = (
            part.short() if size <= SHORT else part
            for part, size in ((self.columns, self.in_features), (self.rows, self.out_features))
        )

    def product(self, x: Tensor) -> Tensor:
        """Return x W^T + b [batch, out], feature-major; raises InputError for x of another dtype or device than the weights."""
        if not self.takes(x):
            values, bias = self.own("values"), self.own("bias")
            if x.dtype != values.dtype or x.device != values.device or x.dtype not in NUMBERS:
                raise InputError(
                    f"Tiled: expected an input of {' or '.join(self.dtypes)} on cpu, as the weights are ({values.dtype} on "
                    f"{values.device}), got {x.dtype} on {x.device}; convert it"
                )
            held = "no bias" if bias is None else f"a bias of shape {list(bias.shape)}, {bias.dtype}"
            raise InputError(
                f"Tiled: expected values of shape [{self.nnz}], a bias of shape [{self.out_features}] or none, contiguous, of "
                f"one dtype, and an input that is no negated view; got values of shape {list(values.shape)}, {held}; copy them"
            )
        return super().product(x)

    def takes(self, x: Tensor) -> bool:
        """Tell whether the kernels, which see addresses alone, read x as it is meant."""
        values, bias = self.own("values"), self.own("bias")
        return (
            x.dtype in NUMBERS
            and x.is_cpu
            and not x.is_neg()
            and _is_plain(values, self._buffers["columns"].numel(), x.dtype)  # type: ignore[union-attr]  # never None
            and (bias is None or _is_plain(bias, self.out_features, x.dtype))
        )

    @classmethod
    def adds_nothing(cls) -> bool:
        """Tell whether a subclass leaves what the kernels give as it is."""
        return cls.forward is Tiled.forward and cls.product is Tiled.product

    def tile_bytes(self, product: int, batch: int) -> int | None:
        """Return the bytes of a thread's tile; a batch of 1 has none."""
        features = self.out_features if product == INPUT_GRADIENT else self.in_features
        return None if batch == 1 else tiled.tile_bytes(features, batch, self.values.dtype)

    turned = staticmethod(transposed)
    permuted = staticmethod(permuted)
    multiply = staticmethod(tiled.product)
    sample = staticmethod(tiled.sampled)

    @classmethod
    def chain_cross_entropy(cls, layers: Sequence[SparseLinear], x: Tensor, labels: Tensor) -> Tensor | None:
        """Return the mean cross-entropy of a chain of such layers, whose gradients come from the same pass; see base class."""
        chained = [layer for layer in layers if isinstance(layer, Tiled) and layer.adds_nothing() and layer.takes(x)]
        sizes = [chained[0].in_features, *(layer.out_features for layer in chained)] if chained else []
        fits = len(chained) == len(layers) and [layer.in_features for layer in chained] == sizes[:-1]
        # Whatever else is unusual, layer by layer says so, or knows what to do with it.
        plain = fits and x.dim() == 2 and x.shape[1] == sizes[0] and len(x) > 0 and not x.requires_grad
        if not plain or (labels.shape, labels.dtype, labels.device) != (x.shape[:1], torch.int64, x.device):
            return None
        lowest, highest = labels.aminmax()
        if int(lowest) < 0 or int(highest) >= sizes[-1]:
            return None
        links = [layer.link() for layer in chained]
        parameters = [*(layer.values for layer in layers), *(layer.bias for layer in layers)]
        result: Tensor = _ChainCrossEntropy.apply(links, x, labels, *parameters)  # type: ignore[no-untyped-call]
        return result

    def link(self) -> Link:
        """Return the layer as a fused kernel takes it."""
        bias = self.own("bias")
        return Link(*self.structures, self.own("values").detach(), self.transposition, None if bias is None else bias.detach())


def _is_plain(tensor: Tensor, length: int, dtype: torch.dtype) -> bool:
    flat = tensor.dim() == 1 and tensor.numel() == length and tensor.is_contiguous()
    return flat and tensor.dtype == dtype and tensor.is_cpu and not tensor.is_neg()


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
        if ctx.gradients is None:
            raise RuntimeError("expected one backward pass through a fused step, got a second; use fused=False")
        # Handed over, so that the parameters take them as they are and copy nothing.
        gradients, ctx.gradients = ctx.gradients, None
        # In a training the loss is what is differentiated, and its own gradient 1: six small products less.
        factor = float(grad)
        scaled = (gradient if gradient is None or factor == 1 else gradient * factor for gradient in gradients)
        return None, None, None, *scaled
