"""The one dense product of the layers that have one."""

from torch import Tensor, addmm
from torch.nn import functional


def dense_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return x weight^T + bias [batch, out] by one dense product that keeps the layout of x [batch, in]."""
    if bias is not None and x.t().is_contiguous() and not x.is_contiguous():
        return addmm(bias[:, None], weight, x.t()).t()
    return functional.linear(x, weight, bias)
