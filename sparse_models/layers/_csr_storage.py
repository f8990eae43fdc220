"""Weights stored as the values of a CSR matrix; the values are the parameter because optimizers refuse CSR tensors."""

import torch
from torch import Tensor

from sparse_models.layers._base import SparseLinear


class CsrStorage(SparseLinear):
    """Storage of the CSR layers: `values` [nnz], row pointers [out + 1], columns [nnz]; indices 32 bit where they fit."""

    row_pointers: Tensor
    columns: Tensor

    def index(self, mask: Tensor) -> None:
        """Store the CSR structure of `mask` [out, in]."""
        row_pointers, _, columns = compress(mask)
        self.register_buffer("row_pointers", row_pointers)
        self.register_buffer("columns", columns)

    def pack(self, dense: Tensor) -> Tensor:
        """Return the entries of `dense` [out, in] under the mask, row by row [nnz]."""
        return dense.reshape(-1).index_select(0, self._positions())

    def unpack(self, values: Tensor) -> Tensor:
        """Return `values` [nnz] as a dense tensor [out, in]."""
        dense = values.new_zeros(self.out_features, self.in_features)
        dense.view(-1)[self._positions()] = values
        return dense

    def repack(self, mask: Tensor, tensors: list[Tensor]) -> list[Tensor]:
        """Store the structure of `mask` and gather `tensors` [nnz] into it, without a dense copy of each."""
        nnz = self.nnz
        number = torch.full((mask.numel(),), nnz, device=mask.device)
        number[self._positions()] = torch.arange(nnz, device=mask.device)
        self.index(mask)
        source = number[self._positions()]  # nnz, where the appended 0 stands, for what is grown
        return [torch.cat([tensor, tensor.new_zeros(1)])[source] for tensor in tensors]

    def matrix(self, values: Tensor) -> Tensor:
        """Return the CSR matrix [out, in] that holds `values` [nnz]."""
        return torch.sparse_csr_tensor(
            self.row_pointers, self.columns, values, (self.out_features, self.in_features), check_invariants=False
        )

    @property
    def mask(self) -> Tensor:
        """The mask [out, in], True = kept."""
        mask = torch.zeros(self.out_features, self.in_features, dtype=torch.bool, device=self.columns.device)
        mask.view(-1)[self._positions()] = True
        return mask

    @property
    def nnz(self) -> int:
        """The number of kept weights."""
        return self.columns.numel()

    def _positions(self) -> Tensor:
        """Return where in the flattened [out, in] weight each value stands [nnz], int64."""
        row_starts = torch.arange(self.out_features, device=self.columns.device) * self.in_features
        return torch.repeat_interleave(row_starts, self.row_pointers.diff()) + self.columns


def compress(mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return row pointers [rows + 1], rows [nnz] and columns [nnz] of `mask` [rows, columns], in row order."""
    rows, columns = mask.nonzero(as_tuple=True)
    integer = torch.int32 if max(rows.numel(), *mask.shape) < 2**31 else torch.int64
    pointers = torch.zeros(mask.shape[0] + 1, dtype=torch.int64, device=mask.device)
    torch.cumsum(mask.sum(1), 0, out=pointers[1:])
    return pointers.to(integer), rows.to(integer), columns.to(integer)
