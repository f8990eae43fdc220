"""What people write first: `F.linear` with a CSR weight. Kept so that the tables show what that costs."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from sparse_models.layers._base import MultiplyAdds, register_layer
from sparse_models.layers._checks import check_number_type
from sparse_models.layers._feature_major.csr_storage import CsrStorage


@register_layer("csr_linear")
class CsrLinear(CsrStorage):
    """CSR weights under PyTorch's own autograd, which computes the **dense** weight gradient and then samples it."""

    layout: ClassVar[str] = "batch-major"

    def product(self, x: Tensor) -> Tensor:
        """Return x W^T + b [batch, out]; raises InputError for weights of a number type that torch.sparse does not multiply."""
        check_number_type(self, self.values)
        shape = (self.out_features, self.in_features)
        matrix = torch.sparse_csr_tensor(self.row_pointers, self.columns, self.values, shape, check_invariants=False)
        return functional.linear(x, matrix, self.bias)

    @property
    def multiply_adds(self) -> MultiplyAdds:
        """The weight gradient is dense."""
        return MultiplyAdds(self.nnz, self.nnz, self.in_features * self.out_features)
