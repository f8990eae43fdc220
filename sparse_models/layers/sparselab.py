"""SparseLab's compiled padded-CSR kernels, where its package is installed."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from sparse_models.errors import AbsentError
from sparse_models.layers._base import register_layer
from sparse_models.layers._feature_major.csr_storage import CsrStorage

try:
    from sparselab import PaddedCSR
    from sparselab.ops import _SpMMFunction, _transpose_cache
except ImportError as error:
    raise AbsentError(f"pip install sparselab==0.2.2 ({error})") from error


@register_layer("sparselab")
class SparseLab(CsrStorage):
    """CSR weights under SparseLab's own autograd function, without its layer, which draws its mask itself.

    Rows have no free slots, so a new mask builds a new matrix. What the package holds outside of torch is in no count of bytes.
    """

    optional: ClassVar[bool] = True
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    dtypes: ClassVar[tuple[str, ...]] = ("float32",)
    layout: ClassVar[str] = "feature-major"

    padded: Any  # the package's matrix
    address: int | None  # of its values, once they are the parameter's

    def index(self, mask: Tensor) -> None:
        """Store the CSR structure of `mask` [out, in], and the package's matrix of it."""
        super().index(mask)
        self._rebuild()

    def product(self, x: Tensor) -> Tensor:
        """Return x W^T + b [batch, out], feature-major."""
        if self.values.data_ptr() != self.address:
            # Its kernels read the matrix's own memory: the parameter moves there, and optimizers write to it.
            self.padded.values[:] = self.values.detach().numpy()
            self.values.data = torch.from_numpy(self.padded.values)
            self.address = self.values.data_ptr()
        y: Tensor = _SpMMFunction.apply(self.values, self.padded, x.t().contiguous(), "simd").t()
        return y if self.bias is None else y + self.bias

    def _rebuild(self) -> None:
        counts = self.row_pointers.diff().tolist()
        self.padded = PaddedCSR(
            nrows=self.out_features,
            ncols=self.in_features,
            values=[0.0] * self.nnz,
            col_indices=self.columns.tolist(),
            row_start=self.row_pointers[:-1].tolist(),
            row_nnz=counts,
            row_capacity=counts,
        )
        self.address = None
        # It keeps transposes by `id`, and would take that of a matrix which is gone for this one's.
        _transpose_cache.pop(id(self.padded), None)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "padded"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._rebuild()
