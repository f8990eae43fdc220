"""The masked layer: a dense product with the weights multiplied by the mask, as most sparse-training code simulates sparsity."""

from typing import ClassVar

import torch
from torch import Tensor

from sparse_models.layers._base import MultiplyAdds, SparseLinear, dense_product
from sparse_models.registry import register_layer


@register_layer("masked")
class Masked(SparseLinear):
    """Dense weights, zero outside the mask, and a dense product: saves no arithmetic."""

    dtypes: ClassVar[tuple[str, ...]] = ("float32", "float64", "bfloat16")
    kept: Tensor

    def index(self, mask: Tensor) -> None:
        """Store the mask [out, in] as it is."""
        self.register_buffer("kept", mask.clone())

    def pack(self, dense: Tensor) -> Tensor:
        """Return `dense` [out, in] with zeros outside the mask."""
        return torch.where(self.kept, dense, 0.0)

    def unpack(self, values: Tensor) -> Tensor:
        """Return `values` [out, in] with zeros outside the mask."""
        return torch.where(self.kept, values, 0.0)

    def product(self, x: Tensor) -> Tensor:
        """Return x (W * M)^T + b [batch, out]; the weight gradient is masked by the same `where`."""
        # `where` equals the multiplication by a bool mask and reads a byte a weight: 2 to 3 times faster on a CPU.
        return dense_product(x, torch.where(self.kept, self.values, 0.0), self.bias)

    @property
    def multiply_adds(self) -> MultiplyAdds:
        """All three products are dense."""
        size = self.values.numel()
        return MultiplyAdds(size, size, size)
