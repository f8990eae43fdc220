"""Whole neurons removed, and what is left multiplied densely: the cheapest saving there is, and exact."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from sparse_models.errors import InputError
from sparse_models.layers._base import SparseLinear, register_layer
from sparse_models.layers.dense import dense_product
from sparse_models.masks import NEURONS, Pattern


@register_layer("compact")
class Compact(SparseLinear):
    """A dense weight of the outputs and inputs that have any weights, with the places of both.

    In a chain, where the outputs that a layer keeps are the inputs that the next one does, nothing is put back in between:
    removed neurons are not there (structured pruning, Li et al. 2017). A layer by itself returns all outputs, of which those
    without weights are their bias.
    """

    pattern: ClassVar[Pattern] = NEURONS
    dtypes: ClassVar[tuple[str, ...]] = ("float32", "float64", "bfloat16", "float16")
    rows: Tensor
    columns: Tensor
    # The places of outputs and inputs as bytes, by which layers that follow one another know that they fit, asking no GPU.
    _sides: tuple[bytes, bytes]

    def index(self, mask: Tensor) -> None:
        """Store which outputs [rows] and which inputs [columns] `mask` [out, in] keeps."""
        self._store(mask.any(1).nonzero().squeeze(1), mask.any(0).nonzero().squeeze(1))

    def _store(self, rows: Tensor, columns: Tensor) -> None:
        self.register_buffer("rows", rows)
        self.register_buffer("columns", columns)
        kept, read = (places.cpu().numpy().tobytes() for places in (rows, columns))
        self._sides = (kept, read)

    def pack(self, dense: Tensor) -> Tensor:
        """Return `dense` [out, in] at the kept outputs and inputs [rows, columns]."""
        return dense[self.rows[:, None], self.columns]

    def unpack(self, values: Tensor) -> Tensor:
        """Return `values` [rows, columns] as a dense tensor [out, in]."""
        dense = values.new_zeros(self.out_features, self.in_features)
        dense[self.rows[:, None], self.columns] = values
        return dense

    def product(self, x: Tensor) -> Tensor:
        """Return x (W * M)^T + b [batch, out]: feature-major where outputs are put back, whose rows are then copied whole."""
        if len(self.rows) == self.out_features or not x.is_cpu or torch.is_autocast_enabled("cpu"):
            return self.traced_product(x)
        # A view is what a graph of autograd then holds on to: the parameter itself is another mask's once that has moved.
        arguments = x, self.values.view_as(self.values), self.bias, self.rows, self.columns, self.out_features
        if not torch.is_grad_enabled():  # entering autograd costs as much as a small product
            return _Alone.forward(*arguments).t()
        result: Tensor = _Alone.apply(*arguments)  # type: ignore[no-untyped-call]
        return result.t()  # here, because of a view that was made in there nothing is changed in place

    def traced_product(self, x: Tensor) -> Tensor:
        """Return what `product` does by PyTorch's own operations alone."""
        return self.spread(self.compact_product(self.gathered(x)))

    def gathered(self, x: Tensor) -> Tensor:
        """Return x [batch, in] at the kept inputs [batch, columns]."""
        return x if len(self.columns) == self.in_features else x.index_select(1, self.columns)

    @property
    def kept_bias(self) -> Tensor | None:
        """The bias of the kept outputs [rows]."""
        bias: Tensor | None = self.bias
        return bias if bias is None or len(self.rows) == self.out_features else bias.index_select(0, self.rows)

    def compact_product(self, x: Tensor) -> Tensor:
        """Return the kept outputs [batch, rows] from the kept inputs [batch, columns]."""
        # A view is what a graph of autograd then holds on to: the parameter itself is another mask's once that has moved.
        return dense_product(x, self.values.view_as(self.values), self.kept_bias)

    def spread(self, kept: Tensor) -> Tensor:
        """Return the kept outputs [batch, rows] among all [batch, out]: the others are their bias."""
        if len(self.rows) == self.out_features:
            return kept
        empty = kept.new_zeros(self.out_features) if self.bias is None else self.bias
        return empty.expand(kept.shape[0], -1).index_copy(1, self.rows, kept)

    @classmethod
    def chain_output(cls, layers: Sequence[SparseLinear], x: Tensor) -> Tensor | None:
        """Return what such layers with ReLU between them make of x [batch, in], removed neurons left out: see base class."""
        chained = [layer for layer in layers if type(layer) is cls and not layer.is_watched]
        if len(chained) < len(layers) or x.dim() != 2 or x.shape[1] != chained[0].in_features:
            return None
        if any(before._sides[0] != after._sides[1] for before, after in pairwise(chained)):  # noqa: SLF001  # of its own class
            return None
        hidden = chained[0].gathered(x)
        for layer in chained[:-1]:
            hidden = torch.relu(layer.compact_product(hidden))
        return chained[-1].spread(chained[-1].compact_product(hidden))

    @property
    def nnz(self) -> int:
        """The number of kept weights."""
        return self.values.numel()

    def restructure(self, saved: Mapping[str, Tensor]) -> None:
        """Take a saved state of any number of kept neurons; refuse, before anything is copied, one of another shape."""
        super().restructure(saved)
        if {"rows", "columns", "values"} <= saved.keys():  # what is missing, PyTorch reports
            rows, columns, values = saved["rows"], saved["columns"], saved["values"]
            most = [int(places.max()) if len(places) else -1 for places in (rows, columns)]
            if values.shape != (len(rows), len(columns)) or most[0] >= self.out_features or most[1] >= self.in_features:
                raise InputError(
                    f"expected the saved state of a weight of shape [{self.out_features}, {self.in_features}], got one of at "
                    f"least {[place + 1 for place in most]} with values of {list(values.shape)}; build the layer in its sizes"
                )
            device = (rows if self.rows.is_meta else self.rows).device  # what is nowhere is to be assigned
            self._store(rows.to(device, copy=True), columns.to(device, copy=True))
            self.hold(self.values.new_empty(values.shape))


class _Alone(torch.autograd.Function):
    """A layer by itself, whose removed outputs are put back: [out, batch], so that whole rows are copied.

    What PyTorch derives for the copies takes longer than the products: it puts zeros in a copy of the whole gradient.
    """

    @staticmethod
    def forward(x: Tensor, values: Tensor, bias: Tensor | None, rows: Tensor, columns: Tensor, outputs: int) -> Tensor:
        turned = x.index_select(1, columns).t()
        if bias is None:
            return x.new_zeros(outputs, len(x)).index_copy_(0, rows, values @ turned)
        kept = torch.addmm(bias.index_select(0, rows)[:, None], values, turned)
        return bias[:, None].expand(-1, len(x)).index_copy(0, rows, kept)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG004
        x, values, _, rows, columns, _ = inputs
        ctx.save_for_backward(x, values, rows, columns)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, values, rows, columns = ctx.saved_tensors
        needed = ctx.needs_input_grad
        kept = grad.index_select(0, rows) if grad.is_contiguous() else grad.t().index_select(1, rows).t()  # [rows, batch]
        x_grad = values_grad = None
        if needed[0]:
            x_grad = x.new_zeros(x.shape).index_copy(1, columns, (values.t() @ kept).t())
        if needed[1]:
            values_grad = kept @ x.index_select(1, columns)
        return x_grad, values_grad, grad.sum(1) if needed[2] else None, None, None, None
