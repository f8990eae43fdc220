"""Weights stored as the values of a CSR matrix; the values are the parameter because optimizers refuse CSR tensors."""

import torch
from torch import Tensor

from sparse_models.layers._base import SparseLinear


class CsrStorage(SparseLinear):
    """Storage shared by the CSR layers: `values` [nnz], row pointers [out + 1], columns [nnz], indices 32 bit where they fit."""

    row_pointers: Tensor
    columns: Tensor

    def index(self, mask: Tensor) -> None:
        """Store the CSR structure of `mask` [out, in]."""
        row_pointers, columns, _ = compress(mask)
        self.register_buffer("row_pointers", row_pointers)
        self.register_buffer("columns", columns)

    def pack(self, dense: Tensor) -> Tensor:
        """Return the entries of `dense` [out, in] under the mask, row by row [nnz]."""
        return dense[self._rows(), self.columns.long()]

    def unpack(self, values: Tensor) -> Tensor:
        """Return `values` [nnz] as a dense tensor [out, in]."""
        dense = values.new_zeros(self.out_features, self.in_features)
        dense[self._rows(), self.columns.long()] = values
        return dense

    def matrix(self, values: Tensor) -> Tensor:
        """Return the CSR matrix [out, in] that holds `values` [nnz]."""
        return torch.sparse_csr_tensor(
            self.row_pointers, self.columns, values, (self.out_features, self.in_features), check_invariants=False
        )

    @property
    def nnz(self) -> int:
        """The number of kept weights."""
        return self.columns.numel()

    def _rows(self) -> Tensor:
        counts = self.row_pointers.diff()
        return torch.repeat_interleave(torch.arange(self.out_features, device=counts.device), counts)


def compress(mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return row pointers [rows + 1], columns [nnz] and rows [nnz] of `mask` [rows, columns], in row order."""
    rows, columns = mask.nonzero(as_tuple=True)
    integer = torch.int32 if max(rows.numel(), *mask.shape) < 2**31 else torch.int64
    pointers = torch.zeros(mask.shape[0] + 1, dtype=torch.int64, device=mask.device)
    torch.cumsum(mask.sum(1), 0, out=pointers[1:])
    return pointers.to(integer), columns.to(integer), rows.to(integer)
