"""Weights stored as the values of a CSR matrix; the values are the parameter because optimizers refuse CSR tensors."""

from typing import Any, ClassVar, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sparse_models.asynchronous import is_asynchronous
from sparse_models.errors import InputError
from sparse_models.kernels.structure import Structure
from sparse_models.layers._base import SparseLinear


class CsrStorage(SparseLinear):
    """Storage of the CSR layers: `values` [nnz], row pointers [out + 1], columns [nnz]; indices 32 bit where they fit."""

    row_pointers: Tensor
    columns: Tensor

    def index(self, mask: Tensor) -> None:
        """Store the CSR structure of `mask` [out, in]."""
        row_pointers, _, columns = self._compressed(mask)
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
        source = number.index_select(0, self._positions())  # nnz, where the appended 0 stands, for what is grown
        one_dtype = len({tensor.dtype for tensor in tensors}) == 1
        groups = [tensors] if one_dtype else [[tensor] for tensor in tensors]
        return [gathered for group in groups for gathered in _gathered(group, source)]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Take a saved structure of any number of non-zeros; refuse, before anything is copied, one of another shape."""
        saved = [
            state_dict[name]
            for name in (f"{prefix}{own}" for own in ("row_pointers", "columns", "values"))
            if name in state_dict
        ]
        if len(saved) == 3:  # what is missing, PyTorch reports
            pointers, columns, values = saved
            fits = pointers.shape == self.row_pointers.shape and int(pointers[-1]) == columns.numel() == values.numel()
            if not fits or (columns.numel() and int(columns.max()) >= self.in_features):
                raise InputError(
                    f"expected the saved state of a weight of shape [{self.out_features}, {self.in_features}], got "
                    f"{pointers.numel() - 1} rows with {values.numel()} values; build the layer in the saved one's sizes"
                )
            device = self.columns.device
            self._nnz_as_set = None
            self.index(self._mask_of(_positions(pointers.to(device), columns.to(device), self.in_features)))
            self.values.data = self.values.new_empty(values.shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    @property
    def mask(self) -> Tensor:
        """The mask [out, in], True = kept."""
        return self._mask_of(self._positions())

    @property
    def nnz(self) -> int:
        """The number of kept weights."""
        return self.columns.numel()

    def _compressed(self, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        known = self._nnz_as_set
        return compress(mask) if known is None or not is_asynchronous(mask) else compress_known(mask, known)

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights and structure that one forward pass reads: not those of the transpose."""
        own = (self.values, self.bias, self.row_pointers, self.columns)
        return sum(tensor.nbytes for tensor in own if tensor is not None)

    def _positions(self) -> Tensor:
        return _positions(self.row_pointers, self.columns, self.in_features)

    def _mask_of(self, positions: Tensor) -> Tensor:
        mask = torch.zeros(self.out_features, self.in_features, dtype=torch.bool, device=positions.device)
        mask.view(-1).index_fill_(0, positions, True)  # noqa: FBT003  # the value filled in
        return mask


class CsrBothWays(CsrStorage):
    """CSR storage with the structure of the transpose kept beside it, so that no product converts anything.

    A layer is a subclass with two products, `multiply` and `sample`, of contiguous feature-major activations.
    """

    layout: ClassVar[str] = "feature-major"
    column_pointers: Tensor
    rows: Tensor
    transposition: Tensor

    def index(self, mask: Tensor) -> None:
        """Store the CSR structure of `mask` [out, in], that of its transpose, and the permutation between their values."""
        super().index(mask)
        column_pointers, columns, rows = self._compressed(mask.t())
        # Number the values in row order, and read the numbers off in column order.
        number = torch.empty(mask.numel(), dtype=self.columns.dtype, device=mask.device)
        number[self._positions()] = torch.arange(self.columns.numel(), dtype=number.dtype, device=mask.device)
        self.register_buffer("column_pointers", column_pointers)
        self.register_buffer("rows", rows)
        self.register_buffer("transposition", number.index_select(0, torch.add(columns, rows.long(), alpha=self.in_features)))

    @staticmethod
    def multiply(structure: Structure, values: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return the matrix that holds `values` [nnz] times x [columns, batch], plus bias [rows]: [rows, batch]."""
        raise NotImplementedError

    @classmethod
    def multiply_transposed(cls, structure: Structure, values: Tensor, order: Tensor, x: Tensor) -> Tensor:
        """Return the matrix that holds values[order] [nnz] times x [columns, batch]: [rows, batch]."""
        return cls.multiply(structure, cls.permuted(values, order), x)

    @staticmethod
    def sample(structure: Structure, grad: Tensor, x: Tensor) -> Tensor:
        """Return, at the non-zeros alone [nnz], grad [rows, batch] times x [columns, batch] transposed."""
        raise NotImplementedError

    @staticmethod
    def turned(x: Tensor) -> Tensor:
        """Return x [batch, features], in any strides, as [features, batch], contiguous."""
        return x.t().contiguous()

    @staticmethod
    def permuted(values: Tensor, order: Tensor) -> Tensor:
        """Return values[order] [nnz]."""
        return values.index_select(0, order)

    def own(self, name: str) -> Any:
        """Return values or bias as the attribute does, in a tenth of its time where it is not parametrized or pruned."""
        return self._parameters[name] if name in self._parameters else getattr(self, name)

    @property
    def structures(self) -> tuple[Structure, Structure]:
        """The structure of the weight [out, in] and that of its transpose."""
        own = cast("dict[str, Tensor]", self._buffers)  # a few look-ups by way of nn.Module take as long as a small product
        return (
            Structure(own["row_pointers"], own["columns"], self.in_features),
            Structure(own["column_pointers"], own["rows"], self.out_features),
        )

    def product(self, x: Tensor) -> Tensor:
        """Return x W^T + b [batch, out], feature-major."""
        rows, columns = self.structures
        if not torch.is_grad_enabled():  # entering autograd costs more than the product of a small batch
            return self.multiply(rows, self.own("values"), self.turned(x), self.own("bias")).t()
        result: Tensor = _Product.apply(x, self.values, self.bias, type(self), rows, columns, self.transposition)  # type: ignore[no-untyped-call]
        return result


class _Product(torch.autograd.Function):
    """y^T = W x^T + b, dx^T = W^T dy^T, and dW sampled at the non-zeros of W; all activations feature-major.

    The structures travel with the graph, so that a mask may move between a forward pass and its backward.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        values: Tensor,
        bias: Tensor | None,
        layer: type[CsrBothWays],
        rows: Structure,
        columns: Structure,
        transposition: Tensor,
    ) -> Tensor:
        x_t = layer.turned(x)  # [in, batch]
        ctx.save_for_backward(x_t, values.detach())  # the parameter itself may be given other data when the mask moves
        ctx.layer, ctx.structures = layer, (rows, columns, transposition)
        return layer.multiply(rows, values, x_t, bias).t()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x_t, values = ctx.saved_tensors
        rows, columns, transposition = ctx.structures
        grad_t = ctx.layer.turned(grad)  # [out, batch]
        x_needed, values_needed, bias_needed, *_ = ctx.needs_input_grad
        x_grad = ctx.layer.multiply_transposed(columns, values, transposition, grad_t).t() if x_needed else None
        values_grad = ctx.layer.sample(rows, grad_t, x_t) if values_needed else None
        return x_grad, values_grad, grad_t.sum(1) if bias_needed else None, None, None, None, None


def _gathered(tensors: list[Tensor], source: Tensor) -> list[Tensor]:
    """Return `tensors` [nnz], of one dtype, at `source`, 0 where that is nnz: two kernels, and one for each tensor."""
    zero = tensors[0].new_zeros(1)
    joined = torch.cat([part for tensor in tensors for part in (tensor, zero)])
    return [part.index_select(0, source) for part in joined.split(len(tensors[0]) + 1)]


def _positions(row_pointers: Tensor, columns: Tensor, in_features: int) -> Tensor:
    """Return where in the flattened [out, in] weight each value stands [nnz], int64."""
    if is_asynchronous(columns):  # the row of each value is found by bisection, in one kernel
        numbers = torch.arange(columns.numel(), dtype=row_pointers.dtype, device=columns.device)
        rows = torch.searchsorted(row_pointers[1:], numbers, right=True)
        return torch.add(columns, rows, alpha=in_features)
    row_starts = torch.arange(len(row_pointers) - 1, device=columns.device) * in_features
    return torch.repeat_interleave(row_starts, row_pointers.diff(), output_size=columns.numel()) + columns


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
