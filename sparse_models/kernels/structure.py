"""Where the non-zeros of a matrix are."""

from typing import NamedTuple

from torch import Tensor


class Structure(NamedTuple):
    """A CSR matrix [rows, columns] without its values: pointers [rows + 1] and the column of each non-zero [nnz]."""

    pointers: Tensor
    indices: Tensor
    columns: int

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.pointers) - 1
