"""How a chain of layers and a batch are cut for a pass: its arguments, and the memory of a tile."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from sparse_models.kernels.cpu._arithmetic import BYTES, name_of
from sparse_models.kernels.cpu._emit import CACHE_LINE
from sparse_models.kernels.cpu._tile import of_bias, tiling
from sparse_models.kernels.cpu.blocks._matrix import BlockForm
from sparse_models.kernels.cpu.csr._form import CsrForm
from sparse_models.kernels.link import Link
from sparse_models.kernels.structure import AnyStructure, Structure
from sparse_models.kernels.variant import Variant

PARTS_PER_THREAD = 2  # of the batch: who is done early takes another
Form = CsrForm | BlockForm


def form_of(structure: AnyStructure, chunks: int, variant: Variant) -> Form:
    """Return what a kernel is compiled for, of a structure."""
    return CsrForm.of(structure.sizes, chunks, variant) if isinstance(structure, Structure) else BlockForm.of(structure)


def heights_of(links: Sequence[Link]) -> list[int]:
    """Return the rows of a tile for the input of each layer and for the logits: features, and zeros that fill whole blocks."""
    rows, columns = (
        [(matrix.rows, matrix.unit[0]) for matrix in each] for each in zip(*(one[:2] for one in links), strict=True)
    )
    both = [(columns[0],), *zip(rows[:-1], columns[1:], strict=True), (rows[-1],)]
    return [max(-(-features // unit) * unit for features, unit in each) for each in both]


def rows_of(heights: Sequence[int]) -> int:
    """Return the rows of a tile: the input of every layer, the logits, and two gradients of the widest of them."""
    return sum(heights) + 2 * max(heights)


class Cut(NamedTuple):
    """How a batch is cut into tiles of so many vectors, these into parts, and for how many tiles there is memory at a time."""

    batch: int
    variant: Variant
    chunks: int
    tiles: int
    parts: int
    scratches: int

    @classmethod
    def of(cls, batch: int, dtype: torch.dtype, variant: Variant) -> "Cut":
        """Return the cut of so many samples for threads that each go through one tile at a time."""
        chunks, tiles = tiling(batch, name_of(dtype), variant.vectors, variant.vector_bytes)
        return cls(batch, variant, chunks, tiles, min(tiles, PARTS_PER_THREAD * variant.threads), variant.threads)


class Arguments(NamedTuple):
    """What a pass over a batch is given: its arguments after x and labels, and what it writes."""

    rest: list[Tensor | int]
    sums: Tensor  # of gradients, for each part of the batch: of the first layer's values, its bias, the next one's values ...
    lengths: list[int]  # of these
    powers: Tensor
    shifts: Tensor
    forms: tuple[Form, ...]


def arguments_for(
    links: Sequence[Link],
    cut: Cut,
    transposed: Sequence[Tensor],
    heights: Sequence[int],
    rows: int,
    variant_of: Callable[[AnyStructure, Variant], Variant] = lambda _, variant: variant,
    beside: int = 0,
) -> Arguments:
    """Return the arguments of a pass with each layer's values in its transpose's order, and so many rows in a tile.

    Given a structure of a link and the cut's variant, `variant_of` says the structure's own, which may have other panels. A
    thread has so many bytes `beside` its tile.
    """
    values, dtype = links[0].values, name_of(links[0].values.dtype)
    batch, variant, chunks, tiles, parts, scratches = cut
    scratch = values.new_empty(scratches, rows * chunks * variant.vector_bytes + CACHE_LINE + beside, dtype=torch.uint8)
    powers, shifts = values.new_empty(2, tiles * variant.vector_bytes // BYTES[dtype])
    lengths = [length for link in links for length in (link.values.numel(), link.rows.rows)]
    sums = values.new_empty(parts, sum(lengths))
    rest: list[Tensor | int] = [powers, shifts, scratch, sums, sums.shape[1], batch, tiles, parts]
    rest += [scratch.shape[1], sum(heights), max(heights), links[0].rows.columns, heights[0]]
    forms = list[Form]()
    for link, height, columns in zip(links, heights[1:], transposed, strict=True):
        variants = [variant_of(structure, variant) for structure in link[:2]]
        own = [form_of(structure, chunks, one) for structure, one in zip(link[:2], variants, strict=True)]
        row_arguments, column_arguments = (
            form.arguments(cast("Any", structure), chunks, one)
            for form, structure, one in zip(own, link[:2], variants, strict=True)
        )
        forms += own
        rest += [*row_arguments, link.values, *of_bias(link.bias), *column_arguments, columns]
        rest += [link.rows.rows, height, link.values.numel()]
    return Arguments(rest, sums, lengths, powers, shifts, tuple(forms))
