"""The dense layer: the reference of every comparison."""

from typing import ClassVar

from torch import Tensor, addmm
from torch.nn import functional

from sparse_models.layers._base import SparseLinear, register_layer
from sparse_models.masks import FULL, Pattern


@register_layer("dense")
class Dense(SparseLinear):
    """`torch.nn.Linear`, with all weights kept."""

    pattern: ClassVar[Pattern] = FULL
    dtypes: ClassVar[tuple[str, ...]] = ("float32", "float64", "bfloat16", "float16")

    def index(self, mask: Tensor) -> None:
        """Store nothing: the only mask is the full one."""

    def pack(self, dense: Tensor) -> Tensor:
        """Return a copy of `dense` [out, in]."""
        return dense.clone()

    def unpack(self, values: Tensor) -> Tensor:
        """Return a copy of `values` [out, in]."""
        return values.clone()

    def product(self, x: Tensor) -> Tensor:
        """Return x W^T + b [batch, out]."""
        return dense_product(x, self.values, self.bias)


def dense_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return x weight^T + bias [batch, out] by one dense product that keeps the layout of x [batch, in]."""
    if bias is not None and x.t().is_contiguous() and not x.is_contiguous():
        return addmm(bias[:, None], weight, x.t()).t()
    return functional.linear(x, weight, bias)
