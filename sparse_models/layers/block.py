"""Kernels of our own for weights that are kept or dropped in blocks, a tile of the batch at a time: block4 ... block64."""

import re
from collections.abc import Sequence
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from sparse_models.kernels.chain import kernels_for
from sparse_models.kernels.cpu.blocks import products as on_cpu
from sparse_models.kernels.cpu.transpose import transposed
from sparse_models.kernels.structure import BlockStructure
from sparse_models.kernels.triton import _loading
from sparse_models.kernels.triton import blocks as on_gpu
from sparse_models.layers._base import MultiplyAdds, SparseLinear, register_layer
from sparse_models.layers._feature_major.own_kernels import OwnKernels
from sparse_models.masks import block
from sparse_models.masks.units import weights_of

# Of the square blocks that are layers by name; one of them stands for all in a default run.
SIZES, DEFAULT = (4, 8, 16, 32, 64), 16
# Weights a layer of a chain that a tile of one sample goes through sooner than layer by layer, where blocks fill it, and
# where they stand over an edge: there a call takes 37 us beside its weights, not 11. On a Zen 4, by vectors of 64 and of
# 32 bytes and by one thread, 13,000 a layer without edges take .8 to 1.05 of the time in one call, and 22,000 1.04 to 1.4.
MOST_OF_A_SAMPLE = {True: 2**14, False: 2**17}


class Block(OwnKernels):
    """A weight of blocks, each of which is kept or dropped as one; `of_size` has the class of a size.

    `values` are [blocks, rows of a block, columns of a block], in rows of blocks. Blocks over the edge of a weight whose sizes
    they do not divide hold zeros beyond it, whose gradients are 0. Takes any strides; fastest with feature-major input
    ([in, batch] contiguous), and returns feature-major output, so that in a chain of such layers nothing is transposed. On a
    GPU blocks of some sizes are multiplied by tensor cores (sparse_models.kernels.triton.blocks), with batch-major
    activations; in float32 as torch is set: by three products of TensorFloat-32, which have all its bits, or by one.
    """

    @classmethod
    def dtypes_on(cls, device: str) -> tuple[str, ...]:
        """Return the number types that there are kernels for on a device."""
        return _loading.DTYPES if device == "cuda" and device in cls.devices else super().dtypes_on(device)

    @classmethod
    def layout_for(cls, device: str, batch: int, *, learning: bool) -> str:
        """Return the layout that the layer prefers: a GPU's kernels take and return samples in rows."""
        return "batch-major" if device == "cuda" else super().layout_for(device, batch, learning=learning)

    @classmethod
    def device_of(cls, x: Tensor) -> str:
        """Return where x is, and so which kernels multiply it."""
        return "cuda" if on_a_gpu(x) else x.device.type

    def multiplied(self, x: Tensor) -> Tensor:
        """Return x W^T + b [batch, out] for x that the kernels take: feature-major, on a GPU batch-major."""
        return on_gpu.linear(x, self.values, self.bias, *self.structures) if on_a_gpu(x) else super().multiplied(x)

    @classmethod
    def chain_output(cls, layers: Sequence[SparseLinear], x: Tensor) -> Tensor | None:
        """Return what a chain of such layers makes of x [batch, in], on a CPU and without a graph: see base class.

        None for a single sample and many weights: of a tile's vectors it is one number, and a layer's own kernel fills them.
        """
        if x.dim() == 2 and x.shape[0] == 1:
            left = 0
            for layer in layers:
                height, width = layer.pattern.unit
                is_whole = layer.out_features % height == layer.in_features % width == 0
                left += MOST_OF_A_SAMPLE[is_whole] - layer.values.numel()
            if left < 0:
                return None
        return super().chain_output(layers, x)

    @classmethod
    def chain_cross_entropy(cls, layers: Sequence[SparseLinear], x: Tensor, labels: Tensor) -> Tensor | None:
        """Return the mean cross-entropy of a chain of such layers, on a CPU: see base class."""
        return None if on_a_gpu(x) else super().chain_cross_entropy(layers, x, labels)

    @staticmethod
    def multiply(structure: BlockStructure, values: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return the matrix that holds `values` times x [columns, batch], plus bias [rows]: [rows, batch]."""
        return kernels_for(structure, x).product(structure, values, x, bias)

    @classmethod
    def multiply_transposed(cls, structure: BlockStructure, values: Tensor, order: Tensor, x: Tensor) -> Tensor:  # noqa: ARG003
        """Return the transpose of the matrix that holds `values` times x: its structure knows the order of the blocks."""
        return cls.multiply(structure, values, x)

    @staticmethod
    def sample(structure: BlockStructure, grad: Tensor, x: Tensor) -> Tensor:
        """Return, at the blocks alone, grad [rows, batch] times x [columns, batch] transposed, in the shape of `values`."""
        return on_cpu.sampled(structure, grad, x)

    @classmethod
    def sample_and_sum(cls, structure: BlockStructure, grad: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `sample` does, and the sums of grad's rows [rows], from one pass over grad; a GPU's kernels have both."""
        return on_cpu.sampled_and_summed(structure, grad, x)

    @staticmethod
    def turned(x: Tensor) -> Tensor:
        """Return x [batch, features], in any strides, as [features, batch], contiguous."""
        return transposed(x)

    @property
    def structures(self) -> tuple[BlockStructure, BlockStructure]:
        """The structure of the weight [out, in] and that of its transpose."""
        own, unit = cast("dict[str, Tensor]", self._buffers), self.pattern.unit
        outputs, inputs = self.out_features, self.in_features
        return (
            BlockStructure(own["row_pointers"], own["columns"], None, outputs, inputs, unit),
            BlockStructure(own["column_pointers"], own["rows"], own["transposition"], inputs, outputs, unit[::-1]),
        )

    @property
    def values_shape(self) -> tuple[int, ...]:
        """The shape that the kernels take the values to be of."""
        return (*super().values_shape, *self.pattern.unit)

    def _blocks_of(self, dense: Tensor) -> Tensor:
        """Return a view of a tensor of whole blocks as [grid, rows of a block, columns of a block]."""
        (down, right), (height, width) = self.grid, self.pattern.unit
        return dense.view(down, height, right, width).transpose(1, 2)

    def _places(self) -> tuple[Tensor, Tensor]:
        """Return the row and the column in the grid of each block."""
        positions, right = self.positions, self.grid[1]
        return positions // right, positions % right

    def pack(self, dense: Tensor) -> Tensor:
        """Return the blocks of `dense` [out, in] under the mask, in the shape of `values`, with zeros beyond its edges."""
        (down, right), (height, width) = self.grid, self.pattern.unit
        missing = (0, right * width - self.in_features, 0, down * height - self.out_features)
        whole = functional.pad(dense, missing) if any(missing) else dense.contiguous()
        return self._blocks_of(whole)[self._places()].contiguous()

    def unpack(self, values: Tensor) -> Tensor:
        """Return `values` as a dense tensor [out, in]."""
        (down, right), (height, width) = self.grid, self.pattern.unit
        dense = values.new_zeros(down * height, right * width)
        self._blocks_of(dense)[self._places()] = values
        return dense[: self.out_features, : self.in_features].contiguous()

    @property
    def mask(self) -> Tensor:
        """The mask [out, in], True = kept."""
        return weights_of(self.units, self.pattern.unit, torch.Size((self.out_features, self.in_features)))

    @property
    def nnz(self) -> int:
        """The number of kept weights: what blocks hold beyond the edges is none."""
        sizes, grid = (self.out_features, self.in_features), self.grid
        units = self.pattern.unit
        if all(size == of * count for size, of, count in zip(sizes, units, grid, strict=True)):
            return self.values.numel()
        held = (
            (size - torch.arange(count, device=self.columns.device) * of).clamp_(max=of)
            for size, of, count in zip(sizes, units, grid, strict=True)
        )
        rows, columns = (side[places] for side, places in zip(held, self._places(), strict=True))
        return int((rows * columns).sum())

    @property
    def multiply_adds(self) -> MultiplyAdds:
        """Multiply-adds per sample of each product: those with what blocks hold beyond the edges are executed as well."""
        return MultiplyAdds(*[self.values.numel()] * 3)


@cache
def of_size(rows: int, columns: int) -> type[Block]:
    """Return the layer of blocks of so many rows (outputs) and columns (inputs); raises InputError for a size below 1."""
    missing = on_gpu.why_absent((rows, columns))
    attributes: dict[str, Any] = {
        "pattern": block(rows, columns),
        "is_default": rows == columns == DEFAULT,
        "devices": ("cpu",) if missing else ("cpu", "cuda"),
        "absent": {"cuda": missing} if missing else {},
        "__module__": __name__,
    }
    return type(f"Block{rows}x{columns}", (Block,), attributes)


def on_a_gpu(x: Tensor) -> bool:
    """Tell whether the kernels of a GPU multiply x; tests let an interpreter do that."""
    return x.is_cuda


def __getattr__(name: str) -> type[Block]:
    """Return the layer of a name like Block3x5: pickle looks a class up where it says that it is."""
    found = re.fullmatch(r"Block(\d+)x(\d+)", name)
    if found is None:
        raise AttributeError(name)
    return of_size(*map(int, found.groups()))


for _size in SIZES:
    register_layer(f"block{_size}")(of_size(_size, _size))
