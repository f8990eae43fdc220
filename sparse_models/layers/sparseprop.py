"""SparseProp's compiled CSR kernels (Nikdan et al. 2023, arXiv:2302.04852), where its package is installed."""

from typing import ClassVar

from torch import Tensor

from sparse_models.errors import AbsentError
from sparse_models.layers._base import register_layer
from sparse_models.layers._feature_major.csr_storage import CsrStorage

try:
    from sparseprop.modules.functions import SparseLinearFunction
except ImportError as error:
    # Its build looks for pip and pybind11 on the PATH, where pip's isolation would hide them.
    raise AbsentError(f"pip install --no-build-isolation sparseprop==0.1.14 ({error})") from error


@register_layer("sparseprop")
class SparseProp(CsrStorage):
    """CSR weights under SparseProp's own autograd function, without its layer, which loses kept weights that are 0."""

    optional: ClassVar[bool] = True
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    dtypes: ClassVar[tuple[str, ...]] = ("float32",)
    layout: ClassVar[str] = "batch-major"

    def product(self, x: Tensor) -> Tensor:
        """Return x W^T + b [batch, out]."""
        # Its kernels read x at its address, as if contiguous. They are given a view of the values, because the parameter has
        # others once the mask moves, and the backward pass would read those by the old structure.
        values, structure = self.values.view_as(self.values), (self.row_pointers, self.columns)
        result: Tensor = SparseLinearFunction.apply(x.contiguous(), values, structure, self.bias, self.out_features)
        return result
