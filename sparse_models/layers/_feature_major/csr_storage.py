"""Weights stored as the values of a CSR matrix; the values are the parameter because optimizers refuse CSR tensors."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from sparse_models.errors import InputError
from sparse_models.kernels.asynchronous import is_asynchronous
from sparse_models.layers._base import SparseLinear
from sparse_models.masks.units import units_of


class CsrStorage(SparseLinear):
    """Storage of the CSR layers: `values` [nnz], row pointers [out + 1], columns [nnz]; indices 32 bit where they fit.

    Where a pattern's unit is more than a weight, rows, columns and what is stored are those of its units.
    """

    row_pointers: Tensor
    columns: Tensor

    @property
    def grid(self) -> tuple[int, int]:
        """How many units a column and a row of the weight consist of."""
        down, right = self.pattern.unit
        return -(-self.out_features // down), -(-self.in_features // right)

    def index(self, mask: Tensor) -> None:
        """Store the CSR structure of `mask` [out, in]."""
        self.index_units(units_of(mask, self.pattern.unit))

    def index_units(self, units: Tensor) -> None:
        """Store the CSR structure of the kept units [grid]."""
        row_pointers, _, columns = self.compressed(units)
        self.register_buffer("row_pointers", row_pointers)
        self.register_buffer("columns", columns)

    def pack(self, dense: Tensor) -> Tensor:
        """Return the entries of `dense` [out, in] under the mask, row by row [nnz]."""
        return dense.reshape(-1).index_select(0, self.positions)

    def unpack(self, values: Tensor) -> Tensor:
        """Return `values` [nnz] as a dense tensor [out, in]."""
        dense = values.new_zeros(self.out_features, self.in_features)
        dense.view(-1)[self.positions] = values
        return dense

    def repack(self, mask: Tensor, tensors: list[Tensor]) -> list[Tensor]:
        """Store the structure of `mask` and gather `tensors` [nnz] into it, without a dense copy of each."""
        held = self.columns.numel()
        number = torch.full((math.prod(self.grid),), held, dtype=_integer(held, mask), device=mask.device)
        number[self.positions] = torch.arange(held, dtype=number.dtype, device=mask.device)
        self.index(mask)
        source = number.index_select(0, self.positions)  # `held`, where the appended 0 stands, for what is grown
        del number
        # One copy of all of them is fewer kernels on a GPU, and more memory.
        together = is_asynchronous(source) and len({tensor.dtype for tensor in tensors}) == 1
        groups = [tensors] if together else [[tensor] for tensor in tensors]
        return [gathered for group in groups for gathered in _gathered(group, source)]

    def restructure(self, saved: Mapping[str, Tensor]) -> None:
        """Take a saved structure of any number of non-zeros; refuse, before anything is copied, one of another shape."""
        super().restructure(saved)
        if {"row_pointers", "columns", "values"} <= saved.keys():  # what is missing, PyTorch reports
            pointers, columns, values = saved["row_pointers"], saved["columns"], saved["values"]
            fits = pointers.shape == self.row_pointers.shape and int(pointers[-1]) == columns.numel() == len(values)
            fits = fits and values.shape[1:] == self.values.shape[1:]
            if not fits or (columns.numel() and int(columns.max()) >= self.grid[1]):
                raise InputError(
                    f"expected the saved state of a weight of shape [{self.out_features}, {self.in_features}], got "
                    f"{pointers.numel() - 1} rows with {values.numel()} values; build the layer in the saved one's sizes"
                )
            device = (columns if self.columns.is_meta else self.columns).device  # what is nowhere is to be assigned
            self.index_units(self._units_at(positions_of(pointers.to(device), columns.to(device), self.grid[1])))
            self.hold(self.values.new_empty(values.shape))

    @property
    def mask(self) -> Tensor:
        """The mask [out, in], True = kept."""
        return self.units

    @property
    def units(self) -> Tensor:
        """The kept units [grid], True = kept."""
        return self._units_at(self.positions)

    @property
    def nnz(self) -> int:
        """The number of kept weights."""
        return self.columns.numel()

    def compressed(self, units: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what `compress` does; where their number is known, a GPU is asked nothing."""
        known = self._nnz_as_set
        if known is None or not is_asynchronous(units) or known % math.prod(self.pattern.unit):
            return compress(units)
        return compress_known(units, known // math.prod(self.pattern.unit))

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights and structure that one forward pass reads: not those of the transpose."""
        own = (self.values, self.bias, self.row_pointers, self.columns)
        return sum(tensor.nbytes for tensor in own if tensor is not None)

    @property
    def positions(self) -> Tensor:
        """Where in the flattened grid each kept unit stands, int64."""
        return positions_of(self.row_pointers, self.columns, self.grid[1])

    def _units_at(self, positions: Tensor) -> Tensor:
        units = torch.zeros(self.grid, dtype=torch.bool, device=positions.device)
        units.view(-1).index_fill_(0, positions, True)  # noqa: FBT003  # the value filled in
        return units


def _gathered(tensors: list[Tensor], source: Tensor) -> list[Tensor]:
    """Return `tensors` [nnz], of one dtype, at `source`, 0 where that is nnz: two kernels, and one for each tensor."""
    zero = tensors[0].new_zeros(1, *tensors[0].shape[1:])
    joined = torch.cat([part for tensor in tensors for part in (tensor, zero)])
    return [part.index_select(0, source) for part in joined.split(len(tensors[0]) + 1)]


def positions_of(row_pointers: Tensor, columns: Tensor, in_features: int) -> Tensor:
    """Return where in the flattened [out, in] weight each value stands [nnz], int64."""
    if is_asynchronous(columns):  # the row of each value is found by bisection, in one kernel
        numbers = torch.arange(columns.numel(), dtype=row_pointers.dtype, device=columns.device)
        rows = torch.searchsorted(row_pointers[1:], numbers, right=True)
        return torch.add(columns, rows, alpha=in_features)
    row_starts = torch.arange(len(row_pointers) - 1, device=columns.device) * in_features
    return torch.repeat_interleave(row_starts, row_pointers.diff(), output_size=columns.numel()).add_(columns)


def compress_known(mask: Tensor, nnz: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `compress` does of a mask with `nnz` kept weights, asking the device nothing; on a CPU it takes longer."""
    integer = _integer(nnz, mask)
    rows, columns = (part.to(integer).contiguous() for part in torch.nonzero_static(mask, size=nnz).unbind(1))
    numbers = torch.arange(mask.shape[0] + 1, dtype=integer, device=mask.device)
    return torch.searchsorted(rows, numbers, out_int32=integer == torch.int32), rows, columns


def _integer(nnz: int, mask: Tensor) -> torch.dtype:
    return torch.int32 if max(nnz, *mask.shape) < 2**31 else torch.int64


def compress(mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return row pointers [rows + 1], rows [nnz] and columns [nnz] of `mask` [rows, columns], in row order."""
    rows, columns = mask.nonzero(as_tuple=True)
    integer = _integer(rows.numel(), mask)
    pointers = torch.zeros(mask.shape[0] + 1, dtype=torch.int64, device=mask.device)
    torch.cumsum(mask.sum(1), 0, out=pointers[1:])
    return pointers.to(integer), rows.to(integer), columns.to(integer)
