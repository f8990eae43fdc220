"""Where the non-zeros of a matrix are: one by one, or in blocks."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

PIECE = 32  # columns: panels consist of pieces, whatever the width of either


class Sizes(NamedTuple):
    """What a kernel's work depends on of a structure, but for which its non-zeros are."""

    rows: int
    columns: int
    nnz: int
    pieces: int  # of columns that are told apart: one where it is not known where they start
    index_bytes: int


class Structure(NamedTuple):
    """A CSR matrix [rows, columns] without its values: pointers [rows + 1] and the column of each non-zero [nnz]."""

    pointers: Tensor
    indices: Tensor
    columns: int
    starts: Tensor | None = None  # as `cut` has them

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.pointers.numel() - 1

    @property
    def sizes(self) -> Sizes:
        """The sizes, in a time that counts beside a small product: a tensor's len() takes ten times that of numel()."""
        pointers, indices, columns, starts = self
        rows = pointers.numel() - 1
        pieces = 1 if starts is None else starts.numel() // rows - 1
        return Sizes(rows, columns, indices.numel(), pieces, indices.element_size())

    @property
    def unit(self) -> tuple[int, int]:
        """The rows and columns of what is stored as one."""
        return 1, 1

    @property
    def rows_in_units(self) -> int:
        """The rows that whole units take."""
        return self.rows

    def dense(self, values: Tensor) -> Tensor:
        """Return the matrix that holds `values` [nnz] as a dense one [rows, columns]."""
        matrix = values.new_zeros(self.rows, self.columns)
        matrix[_rows(self.pointers), self.indices.long()] = values
        return matrix

    def at(self, matrix: Tensor) -> Tensor:
        """Return what a dense matrix [rows, columns] has at the non-zeros [nnz]."""
        return matrix[_rows(self.pointers), self.indices.long()]


def cut(pointers: Tensor, indices: Tensor, columns: int) -> Tensor | None:
    """Return where in each row the non-zeros of each piece of PIECE columns start, and where all end [pieces + 1, rows].

    It is None where there is but one piece, whose non-zeros start and end where the row's do.
    """
    pieces, rows = -(-columns // PIECE), len(pointers) - 1
    if pieces == 1:
        return None
    cells = torch.repeat_interleave(torch.arange(rows, dtype=torch.int32, device=pointers.device) * pieces, pointers.diff())
    counts = torch.bincount(cells.add_(torch.div(indices, PIECE, rounding_mode="floor")), minlength=rows * pieces)
    ends = counts.cumsum(0, dtype=torch.int32).view(rows, pieces).t()
    return torch.cat([pointers[None, :-1], ends])


class BlockStructure(NamedTuple):
    """A matrix [rows, columns] of blocks [height, width], without its values [blocks, height, width] in rows of blocks.

    Held are pointers [rows of blocks + 1] and each block's column of blocks [blocks]. Of sizes that do not divide, the last
    blocks stand over the edge, where their values are 0. A transpose reads the values of the matrix that it is of: `order` says
    which of its blocks each one is [blocks], and what is stored of a block is [width, height].
    """

    pointers: Tensor
    indices: Tensor
    order: Tensor | None
    rows: int
    columns: int
    unit: tuple[int, int]

    @property
    def height(self) -> int:
        """The rows of a block."""
        return self.unit[0]

    @property
    def width(self) -> int:
        """The columns of a block."""
        return self.unit[1]

    @property
    def arrays(self) -> tuple[Tensor, Tensor, Tensor]:
        """The tensors as kernels take them: pointers, indices, and an order, whether there is one or not."""
        return self.pointers, self.indices, self.indices if self.order is None else self.order

    @property
    def rows_of_blocks(self) -> int:
        """The number of rows of blocks."""
        return len(self.pointers) - 1

    @property
    def rows_in_units(self) -> int:
        """The rows that whole blocks take."""
        return self.rows_of_blocks * self.height

    @property
    def columns_of_blocks(self) -> int:
        """The number of columns of blocks."""
        return -(-self.columns // self.width)

    def dense(self, values: Tensor) -> Tensor:
        """Return the matrix that holds `values`, its own or its transpose's, as a dense one [rows, columns]."""
        matrix = values.new_zeros(self.rows_of_blocks * self.height, self.columns_of_blocks * self.width)
        held = values if self.order is None else values[self.order.long()].mT
        self._by_block(matrix)[_rows(self.pointers), self.indices.long()] = held
        return matrix[: self.rows, : self.columns]

    def at(self, matrix: Tensor) -> Tensor:
        """Return what a dense matrix [rows, columns] has at the blocks [blocks, height, width], and 0 beyond its edges."""
        whole = functional.pad(matrix, (0, -self.columns % self.width, 0, -self.rows % self.height))
        return self._by_block(whole)[_rows(self.pointers), self.indices.long()]

    def _by_block(self, whole: Tensor) -> Tensor:
        return whole.view(self.rows_of_blocks, self.height, self.columns_of_blocks, self.width).transpose(1, 2)


def _rows(pointers: Tensor) -> Tensor:
    """Return the row of each thing that is stored."""
    return torch.repeat_interleave(torch.arange(len(pointers) - 1, device=pointers.device), pointers.diff())


AnyStructure = Structure | BlockStructure
