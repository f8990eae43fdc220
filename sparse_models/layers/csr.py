"""CSR weights by torch.sparse: at its best, and as people write it first."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from sparse_models.kernels.structure import Structure
from sparse_models.layers._base import MultiplyAdds, register_layer
from sparse_models.layers._checks import check_number_type
from sparse_models.layers._feature_major.both_ways import CsrBothWays
from sparse_models.layers._feature_major.csr_storage import CsrStorage


@register_layer("csr")
class Csr(CsrBothWays):
    """CSR weights with the transposed structure kept beside them, so that no product converts anything.

    Takes any strides; fastest with feature-major input ([in, batch] contiguous), and returns feature-major output.
    """

    def product(self, x: Tensor) -> Tensor:
        """Return x W^T + b [batch, out], feature-major; under autocast in the weights' dtype, as torch.sparse has no other.

        Raises InputError for weights of a number type that torch.sparse does not multiply.
        """
        check_number_type(self, self.values)
        if not torch.is_autocast_enabled(x.device.type):
            return super().product(x)
        with torch.autocast(x.device.type, enabled=False):
            return super().product(x.to(self.values.dtype))

    @staticmethod
    def multiply(structure: Structure, values: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return the matrix that holds `values` [nnz] times x [columns, batch], plus bias [rows]: [rows, batch]."""
        matrix = _matrix(structure, values)
        # For a batch of 1 the matrix-vector kernel takes half the time of the matrix product.
        result = torch.mv(matrix, x[:, 0])[:, None] if x.shape[1] == 1 else torch.mm(matrix, x)
        if bias is not None:
            result += bias[:, None]
        return result

    @staticmethod
    def sample(structure: Structure, grad: Tensor, x: Tensor) -> Tensor:
        """Return, at the non-zeros alone [nnz], grad [rows, batch] times x [columns, batch] transposed."""
        # The sampled product adds beta * values, so a zero pattern keeps infinite values out of the gradient.
        pattern = _matrix(structure, x.new_zeros(len(structure.indices)))
        result: Tensor = torch.sparse.sampled_addmm(pattern, grad, x.t(), beta=0.0).values()
        return result


def _matrix(structure: Structure, values: Tensor) -> Tensor:
    arrays, shape = (structure.pointers, structure.indices, values), (structure.rows, structure.columns)
    return torch.sparse_csr_tensor(*arrays, shape, device=values.device, check_invariants=False)


@register_layer("csr_linear")
class CsrLinear(CsrStorage):
    """What people write first, `F.linear` with a CSR weight, kept so that the tables show what that costs.

    Under PyTorch's own autograd, which computes the **dense** weight gradient and then samples it.
    """

    layout: ClassVar[str] = "batch-major"

    @classmethod
    def is_default_on(cls, device: str) -> bool:
        """Tell whether the default grid has the layer: on a GPU no graph holds its steps, and it is all launches."""
        return cls.is_default and device == "cpu"

    def product(self, x: Tensor) -> Tensor:
        """Return x W^T + b [batch, out]; raises InputError for weights of a number type that torch.sparse does not multiply."""
        check_number_type(self, self.values)
        matrix = _matrix(Structure(self.row_pointers, self.columns, self.in_features), self.values)
        return functional.linear(x, matrix, self.bias)

    @property
    def multiply_adds(self) -> MultiplyAdds:
        """The weight gradient is dense."""
        return MultiplyAdds(self.nnz, self.nnz, self.in_features * self.out_features)
