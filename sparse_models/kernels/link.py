"""What a fused step is given of a layer, and what it gives back of all of them."""

from typing import NamedTuple

from torch import Tensor

from sparse_models.kernels.cpu.permute import permuted
from sparse_models.kernels.structure import Structure


class Link(NamedTuple):
    """One layer: its structure and its transpose's, its values [nnz], where each of the transpose's is among them, its bias."""

    rows: Structure
    columns: Structure
    values: Tensor
    transposition: Tensor
    bias: Tensor | None

    @property
    def transposed_values(self) -> Tensor:
        """The values [nnz] in the transpose's order."""
        return permuted(self.values, self.transposition)


class Gradients(NamedTuple):
    """The mean cross-entropy of a batch, and for each layer the gradients of its values and of its bias."""

    loss: Tensor
    values: list[Tensor]
    biases: list[Tensor]
