"""What a kernel for CSR matrices is compiled for, and what it is given of one: structures in, arguments out."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from sparse_models.kernels.cpu.csr._matrix import POINTER_BYTES, Matrix
from sparse_models.kernels.cpu.csr._panels import panel_pieces
from sparse_models.kernels.structure import Sizes, Structure
from sparse_models.kernels.variant import Variant

ARRAYS, NUMBERS = 3, 3  # arguments of a kernel that tell a structure


class CsrForm(NamedTuple):
    """What a kernel for CSR matrices is compiled for."""

    index_bytes: int
    together: int  # non-zeros that are taken at a time
    is_whole: bool = True  # all columns are one panel
    is_ordered: bool = False  # values are looked up by their order
    short: str = ""  # the number type of values that are stored in 16 bit

    @classmethod
    def of(cls, sizes: Sizes, chunks: int, variant: Variant) -> "CsrForm":
        """Return the form of a structure for tiles of so many vectors, as a variant has it."""
        return cls(sizes.index_bytes, variant.together, panel_pieces(sizes, chunks, variant) == sizes.pieces)

    @property
    def unit(self) -> tuple[int, int]:
        """The rows and columns of what is stored as one."""
        return 1, 1

    @property
    def addresses(self) -> int:
        """How many arguments of a kernel tell a structure."""
        return ARRAYS + NUMBERS

    def arguments(self, structure: Structure, chunks: int, variant: Variant) -> list[Tensor | int]:
        """Return a structure as a kernel for tiles of so many vectors takes it."""
        return [*self.arrays(structure), structure.indices, *self.numbers(structure.sizes, chunks, variant)]

    def arrays(self, structure: Structure) -> tuple[Tensor, Tensor]:
        """Return where rows start, in each piece of columns if there are panels, and the indices."""
        starts = structure.pointers if self.is_whole or structure.starts is None else structure.starts
        return starts, structure.indices

    @staticmethod
    def numbers(sizes: Sizes, chunks: int, variant: Variant) -> tuple[int, int, int]:
        """Return the bytes from a piece's starts to the next's, how many pieces there are, and how many a panel has."""
        return POINTER_BYTES * sizes.rows, sizes.pieces, panel_pieces(sizes, chunks, variant)

    def matrix(self, addresses: Sequence[Any], values: Any) -> Matrix:
        """Return the matrix whose structure is at some addresses, as `arguments` has them."""
        starts, indices, order, step, pieces, panel = addresses
        return Matrix(self, starts, indices, order, step, pieces, panel, values)
