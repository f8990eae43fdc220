"""From a weight to which of its rows and columns the gate looks at: all of a small one, a sample of a large one."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# Weights of up to so many entries are looked at in full: 0.1 s on one core of a Zen 5 server, and 13 times 4 MiB.
SMALL = 2**20
# Rows or columns of which one is looked at in each run of so many: no tile of a kernel is wider.
BLOCK = 64
# Of a matrix with few rows the sample is most of them: its weights are then looked at in one row of so many, and in the columns
# of the sample, which go through all rows.
LEAST_SHARE = 8
PIECE = 2**18  # entries that are looked at in one go


class Part(NamedTuple):
    """Some places along one dimension of a matrix."""

    dim: int
    places: Tensor
    size: int  # of that dimension

    def of(self, matrix: Tensor) -> Tensor:
        """Return the rows or columns of `matrix` that stand at these places."""
        return matrix.index_select(self.dim, self.places)

    def pieces(self, entries: int) -> list["Part"]:
        """Return the same places in turns, so many at once that with `entries` at each of them a piece is small."""
        return [Part(self.dim, places, self.size) for places in self.places.split(max(1, PIECE // entries))]

    def turned(self) -> "Part":
        """Return the same places along the other dimension."""
        return Part(1 - self.dim, self.places, self.size)

    def cut(self) -> "Part":
        """Return these places or, where they are more than a share of the whole, so many of them drawn at random."""
        most = max(1, self.size // LEAST_SHARE)
        if len(self.places) <= most:
            return self
        chosen = torch.randperm(len(self.places), generator=_fresh(), device="cpu")[:most].sort().values
        return Part(self.dim, self.places[chosen.to(self.places.device)], self.size)


def sample(weight: Tensor) -> tuple[Part, Part] | None:
    """Return rows and columns of a large weight [out, in], others each time; None for a small one, of which all are meant.

    There is one of each block of 64, one at each position modulo 64, and the first and the last.
    """
    if weight.numel() <= SMALL:
        return None
    rows, columns = (Part(dim, spread(size).to(weight.device), size) for dim, size in enumerate(weight.shape))
    return rows, columns


def spread(size: int) -> Tensor:
    """Return places below `size`, in order: one of each block of 64, one at each position modulo 64, the first and the last."""
    if size <= BLOCK:
        return torch.arange(size, device="cpu")
    random, whole = _fresh(), size // BLOCK
    # Blocks and positions are paired at random: each block has a position, and each position a block.
    pairs = torch.arange(max(whole, BLOCK), device="cpu")
    blocks, positions = (torch.randperm(of, generator=random, device="cpu")[pairs % of] for of in (whole, BLOCK))
    rest = torch.randint(whole * BLOCK, size, (1,), generator=random, device="cpu") if size % BLOCK else pairs[:0]
    ends = pairs.new_tensor([0, size - 1])
    places: Tensor = torch.cat([blocks * BLOCK + positions, rest, ends]).unique()
    return places


def _fresh() -> torch.Generator:
    """Return a generator that nobody else draws from, and that starts elsewhere each time: what one run misses another sees."""
    generator = torch.Generator()
    generator.seed()
    return generator


def row_pieces(shape: Sequence[int]) -> Iterator[slice]:
    """Yield all rows of a matrix of a shape [rows, columns] in turns, so many at once that they are small."""
    rows = max(1, PIECE // shape[1])
    return (slice(start, start + rows) for start in range(0, shape[0], rows))
