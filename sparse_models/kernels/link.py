"""What a fused step is given of a layer, and what it gives back of all of them."""

from typing import NamedTuple

from torch import Tensor

from sparse_models.kernels.cpu.permute import permuted
from sparse_models.kernels.structure import AnyStructure, BlockStructure


class Link(NamedTuple):
    """One layer: its structure and its transpose's, its values, where each of the transpose's is among them, and its bias.

    Values are [nnz], or blocks as BlockStructure has them, and `transposition` is of as many.
    """

    rows: AnyStructure
    columns: AnyStructure
    values: Tensor
    transposition: Tensor
    bias: Tensor | None

    @property
    def transposed_values(self) -> Tensor:
        """The values in the transpose's order: blocks stay where they are, and their transpose knows where."""
        return self.values if isinstance(self.columns, BlockStructure) else permuted(self.values, self.transposition)

    def reads(self, x: Tensor) -> bool:
        """Tell whether a CPU's kernel, which sees addresses alone, reads x [batch, in] as it is meant."""
        fits = type(x) is Tensor and x.is_cpu and x.dtype == self.values.dtype and x.dim() == 2
        return fits and x.shape[1] == self.rows.columns and len(x) > 0 and not x.is_neg()


class Gradients(NamedTuple):
    """The mean cross-entropy of a batch, and for each layer the gradients of its values and of its bias."""

    loss: Tensor
    values: list[Tensor]
    biases: list[Tensor]
