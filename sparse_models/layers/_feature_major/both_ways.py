"""Layers over a CSR structure that is kept both ways, so that no product converts anything."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sparse_models.errors import InputError
from sparse_models.kernels.asynchronous import is_captured
from sparse_models.kernels.cpu.moves._table import Storage
from sparse_models.kernels.structure import AnyStructure, Structure
from sparse_models.layers._feature_major import as_operator
from sparse_models.layers._feature_major.csr_storage import CsrStorage, positions_of
from sparse_models.layers._feature_major.products import Products
from sparse_models.linear import is_memory
from sparse_models.masks import UNSTRUCTURED

if TYPE_CHECKING:
    from typing_extensions import Self


class CsrBothWays(CsrStorage):
    """CSR storage with the structure of the transpose kept beside it, so that no product converts anything.

    A layer is a subclass with two products, `multiply` and `sample`, of contiguous feature-major activations.
    """

    layout: ClassVar[str] = "feature-major"
    column_pointers: Tensor
    rows: Tensor
    transposition: Tensor
    _fitting = -1  # how often `transposition` was written to when the index was last known to be one; -1: it is not known

    def index_units(self, units: Tensor) -> None:
        """Store the CSR structure of the kept units [grid], that of its transpose, and the permutation between their values."""
        super().index_units(units)
        column_pointers, columns, rows = self.compressed(units.t())
        # Number the values in row order, and read the numbers off in column order.
        number = torch.empty(units.numel(), dtype=self.columns.dtype, device=units.device)
        number[self.positions] = torch.arange(self.columns.numel(), dtype=number.dtype, device=units.device)
        self.register_buffer("column_pointers", column_pointers)
        self.register_buffer("rows", rows)
        places = rows.to(torch.int64, copy=True)  # which may be its own already
        torch.add(columns, places, alpha=units.shape[1], out=places)
        self.register_buffer("transposition", number.index_select(0, places))
        self._fitting = 0

    def reindex(self, index: Sequence[Tensor]) -> None:
        """Take an index of as many non-zeros, as `rewritten` has it: other tensors, or those that there are, written anew."""
        self._buffers.update(zip(as_operator.BUFFERS, index, strict=True))
        self._fitting = self.transposition._version  # noqa: SLF001  # PyTorch has no public name for it
        self.cut()

    def cut(self) -> None:
        """Store what follows from the index that is there now; override where there is such."""

    def train(self, mode: bool = True) -> "Self":  # noqa: FBT001, FBT002  # as nn.Module has it
        """Set the mode, as nn.Module does; raises InputError where something else than an index was written in its place.

        An average of indices, which `AveragedModel` makes of all buffers where it is told to, is rounded down to another place.
        What was never written to, as memory that `to_empty` prepares for a state that is to be loaded, is none's yet.
        """
        order = self.transposition
        # Tensors of inference_mode count no changes; what is captured, and what has no numbers, cannot be asked for any.
        if is_memory(order) and not (order.is_meta or order.is_inference() or is_captured(order)):
            written = order._version  # noqa: SLF001  # PyTorch has no public name for it
            if written != self._fitting and (written or self._fitting < 0) and not self._fits():
                raise InputError(
                    f"{type(self).__name__}: expected the index of its weights, got other numbers in its place; average "
                    "parameters alone (AveragedModel without use_buffers), or load a state anew"
                )
            self._fitting = written
        return super().train(mode)

    def restructure(self, saved: Mapping[str, Tensor]) -> None:
        """Make room for a saved state, of which it is not known whether its index is one."""
        super().restructure(saved)
        self._fitting = -1

    def _fits(self) -> bool:
        """Tell whether both structures are of one matrix, and the permutation between their values is theirs."""
        down, right = self.grid
        held, places = self.columns.numel(), list[Tensor]()
        for pointers, indices, size in ((self.row_pointers, self.columns, right), (self.column_pointers, self.rows, down)):
            if int(pointers[0]) != 0 or int(pointers[-1]) != held or bool((pointers.diff() < 0).any()):
                return False
            if held and not 0 <= int(indices.min()) <= int(indices.max()) < size:
                return False
            places.append(positions_of(pointers, indices, size))
        order = self.transposition.long()
        if held and not 0 <= int(order.min()) <= int(order.max()) < held:
            return False
        columns = torch.div(places[1], down, rounding_mode="floor")
        return torch.equal(places[0][order], places[1].remainder(down) * right + columns)

    def rewritten(self, slots: Sequence[Tensor]) -> Storage | None:
        """Return what kernels rewrite where the mask moves in place, with optimizer slots [nnz]; None where none can."""
        own, values = cast("dict[str, Tensor]", self._buffers), self._parameters.get("values")
        if self.pattern is not UNSTRUCTURED or values is None:
            return None
        index, starts = (own[name] for name in as_operator.BUFFERS), (own.get("row_starts"), own.get("column_starts"))
        return Storage._make([*index, *starts, values, tuple(slots)])

    @staticmethod
    def multiply(structure: Any, values: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return the matrix that holds `values` [nnz] times x [columns, batch], plus bias [rows]: [rows, batch]."""
        raise NotImplementedError

    @classmethod
    def multiply_transposed(cls, structure: Any, values: Tensor, order: Tensor, x: Tensor) -> Tensor:
        """Return the matrix that holds values[order] [nnz] times x [columns, batch]: [rows, batch]."""
        return cls.multiply(structure, cls.permuted(values, order), x)

    @staticmethod
    def sample(structure: Any, grad: Tensor, x: Tensor) -> Tensor:
        """Return, at the non-zeros alone [nnz], grad [rows, batch] times x [columns, batch] transposed."""
        raise NotImplementedError

    @classmethod
    def sample_and_sum(cls, structure: Any, grad: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `sample` does, and the sums of grad's rows [rows]; override where that is one pass over grad."""
        return cls.sample(structure, grad, x), grad.sum(1)

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
    def structures(self) -> tuple[AnyStructure, AnyStructure]:
        """The structure of the weight [out, in] and that of its transpose."""
        own = cast("dict[str, Tensor]", self._buffers)  # a few look-ups by way of nn.Module take as long as a small product
        return (
            Structure(own["row_pointers"], own["columns"], self.in_features),
            Structure(own["column_pointers"], own["rows"], self.out_features),
        )

    def product(self, x: Tensor) -> Tensor:
        """Return x W^T + b [batch, out], feature-major."""
        if not torch.is_grad_enabled():  # entering autograd costs more than the product of a small batch
            return self.multiply(self.structures[0], self.own("values"), self.turned(x), self.own("bias")).t()
        return self.learning_product(x, self.products_for(x))

    def products_for(self, x: Tensor) -> Products:  # noqa: ARG002
        """Return what autograd asks of the layer for x [batch, in]; override where there is a faster way."""
        return Products(type(self), *self.structures, self.transposition)

    def learning_product(self, x: Tensor, products: Products) -> Tensor:
        """Return x W^T + b [batch, out], feature-major, with its graph."""
        result: Tensor = _Product.apply(x, self.own("values"), self.own("bias"), products)  # type: ignore[no-untyped-call]
        return result

    def traced_product(self, x: Tensor) -> Tensor:
        """Return what `product` does as one operator; on a GPU, whose kernels are others, PyTorch looks into it."""
        return as_operator.linear(self, x) if x.device.type == "cpu" else self.product(x)


class _Product(torch.autograd.Function):
    """y^T = W x^T + b, dx^T = W^T dy^T, and dW sampled at the non-zeros of W; all activations feature-major.

    The structures travel with the graph, so that a mask may move between a forward pass and its backward. On a CPU dx has the
    strides of x, as PyTorch's own layers give it: ReLU's gradient takes several times as long where it reads two in different
    strides.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, bias: Tensor | None, products: Products) -> Tensor:
        x_t = products.turned(x)  # [in, batch]
        ctx.save_for_backward(x_t, values.detach())  # the parameter itself may be given other data when the mask moves
        ctx.products = products
        ctx.is_batch_major = x.is_cpu and as_operator.is_batch_major(x)
        return products.output(x_t, values, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # To be refused a second derivative, where one may be asked for, costs microseconds.
        gradients = _once_differentiable_gradients if torch.is_grad_enabled() else _gradients
        return gradients(ctx, grad)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x_t, values = ctx.saved_tensors
    x_t, values = x_t.contiguous(), values.contiguous()  # a hook may have saved them in other strides
    if not is_memory(grad):
        grad = grad.clone()  # of zeros that are written down as none
        if not is_memory(grad):
            raise InputError(f"expected an output's gradient that is numbers in memory, got {type(grad).__name__}; unwrap it")
    products: Products = ctx.products.current()
    grad_t = products.turned(grad.resolve_neg())  # [out, batch]
    x_needed, values_needed, bias_needed, _ = ctx.needs_input_grad
    x_grad: Tensor | None = None
    values_grad: Tensor | None = None
    bias_grad: Tensor | None = None
    if x_needed:
        found = products.input_gradient(grad_t, values)  # [batch, in], feature-major
        x_grad = products.turned(found.t()).to(found.dtype) if ctx.is_batch_major else found
    if values_needed and bias_needed:
        values_grad, bias_grad = products.weight_and_bias_gradient(grad_t, x_t)
    else:
        values_grad = products.weight_gradient(grad_t, x_t) if values_needed else None
        bias_grad = grad_t.sum(1) if bias_needed else None
    return x_grad, values_grad, bias_grad, None


_once_differentiable_gradients = once_differentiable(_gradients)
