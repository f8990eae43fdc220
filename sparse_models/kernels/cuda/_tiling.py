"""How the sparse products cut their work into blocks, and which cut is estimated to be fastest for a shape."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from sparse_models.kernels.cuda import _card
from sparse_models.kernels.cuda._card import H100, RESERVED_BYTES
from sparse_models.kernels.cuda._compile import Macros
from sparse_models.kernels.cuda._race import MOST
from sparse_models.kernels.structure import Structure

PIECE_BYTES = 16  # what a lane loads at once
NAMES = {torch.float32: "Float32", torch.float16: "Float16", torch.bfloat16: "Bfloat16"}

SHARED_RATE = 128  # bytes that shared memory gives a multiprocessor in a clock
MOST_PARTS = 512


class Work(NamedTuple):
    """What a product's time depends on: its sizes, the bytes of a number, and what the card has."""

    rows: int
    columns: int
    nnz: int
    batch: int
    number_bytes: int
    multiprocessors: int = H100.multiprocessors
    shared_bytes: int = H100.shared_bytes  # that a block can have


class Tiling(NamedTuple):
    """A block's share: its threads, the rows of each warp, its tile of the batch, and the slabs that x comes in.

    A tile is as wide as `group` lanes of `pieces` 16-byte pieces each; x [columns, tile] comes in at least `cuts` slabs;
    `blocks` are at a multiprocessor at once; `unroll` is how many steps of the innermost loop are one. Of two `buffers` one is
    copied while the other is multiplied; with one, slabs are as wide as shared memory, and copies are waited for.
    """

    group: int = 16
    pieces: int = 1
    rows: int = 8
    threads: int = 512
    cuts: int = 1
    blocks: int = 1
    unroll: int = 2
    buffers: int = 2

    @property
    def warps(self) -> int:
        """The warps of a block."""
        return self.threads // 32

    @property
    def column_bytes(self) -> int:
        """The bytes of a tile of one column."""
        return self.group * self.pieces * PIECE_BYTES

    def tiles(self, work: Work) -> int:
        """Return into how many tiles a batch is cut."""
        return -(-work.batch * work.number_bytes // self.column_bytes)

    def tiles_each(self, work: Work, parts: int) -> int:
        """Return how many tiles a block takes where the batch is cut into parts."""
        return -(-self.tiles(work) // parts)

    def most_parts(self, work: Work) -> int:
        """Return into how many parts a batch may be worth to be cut."""
        return min(self.tiles(work), MOST_PARTS)

    def row_blocks(self, rows: int) -> int:
        """Return into how many blocks so many rows are cut."""
        return -(-rows // (self.warps * self.rows))

    def slab(self, columns: int, staged: int, *, turns: bool = False, most: int = H100.shared_bytes) -> tuple[int, int]:
        """Return the columns of a slab and a block's bytes of shared memory, at most `most`, `staged` of them for each warp.

        Two slabs take turns in it where there is more than one, or where the one is followed by those of other tiles (`turns`),
        and where there are two buffers.
        """
        room = most // self.blocks - RESERVED_BYTES - self.warps * staged
        room = room // self.column_bytes - 1  # a column of zeros
        cuts = max(1, min(self.cuts, columns))
        two = self.buffers == 2 and (cuts > 1 or turns or columns > room)
        slab = max(1, -(-columns // max(cuts, -(-columns // (room // 2 if two else room)))))
        return slab, (1 + (2 if two else 1) * slab) * self.column_bytes + self.warps * staged

    def macros(self, structure: Structure, x: Tensor, *, aligned: bool) -> Macros:
        """Return what the kernels are compiled with."""
        return (
            ("NUMBER", NAMES[x.dtype]),
            ("INDEX", "u16" if structure.indices.dtype == torch.int16 else "int"),
            ("GROUP", self.group),
            ("PIECES", self.pieces),
            ("ROWS", self.rows),
            ("THREADS", self.threads),
            ("BLOCKS", self.blocks),
            ("UNROLL", self.unroll),
            ("BUFFERS", self.buffers),
            ("ALIGNED", int(aligned)),
        )


def aligned(batch: int, *tensors: Tensor | None) -> bool:
    """Tell whether rows of a batch so long can be read 16 bytes at a time."""
    present = [tensor for tensor in tensors if tensor is not None]
    return batch * present[0].element_size() % PIECE_BYTES == 0 and all(one.data_ptr() % PIECE_BYTES == 0 for one in present)


def work_of(structure: Structure, x: Tensor) -> Work:
    """Return the work of a product of a structure and x [columns, batch]."""
    sizes = structure.rows, structure.columns, len(structure.indices), x.shape[1], x.element_size()
    return Work(*sizes, *_card.card_of(x.device))


class Costs(NamedTuple):
    """What a kernel costs, in clocks of a multiprocessor; fitted to times of 5 shapes at 4 sparsities on an H100.

    A row's non-zeros in a slab cost the loads of their columns' tiles, `unfilled` of a warp's groups without a non-zero,
    `segment`, and `chunk` for each further 32 of them; a single warp takes `latency` for them, and `chunk_latency`. Of a slab,
    `copied` bytes are brought in a clock. Numbers of 2 bytes are used at `half` of the rate that shared memory gives them at.
    """

    segment: float
    chunk: float
    latency: float
    chunk_latency: float
    unfilled: float
    copied: float
    begun: float
    half: float


# Not measured: all bytes of the one slab that is copied while nothing is multiplied, when all multiprocessors copy.
WAITED_RATE = 24
WAITED_CLOCKS = 700


def estimated(tiling: Tiling, work: Work, staged: int, parts: int, costs: Costs) -> float:
    """Return the clocks that a product may take for which the batch is cut into parts."""
    tiles_each = tiling.tiles_each(work, parts)
    slab, _ = tiling.slab(work.columns, staged, turns=tiles_each > 1, most=work.shared_bytes)
    slabs, blocks = max(1, -(-work.columns // slab)), tiling.row_blocks(work.rows) * -(-tiling.tiles(work) // tiles_each)
    each = -(-blocks // work.multiprocessors)  # of the multiprocessor that has most
    at_once = min(tiling.blocks, each)
    rate = SHARED_RATE * (costs.half if work.number_bytes == 2 else 1)
    held = work.nnz / work.rows / slabs  # non-zeros of a row in a slab
    loads = (held + costs.unfilled * 16 / tiling.group) * tiling.column_bytes / rate
    row = loads + costs.segment + costs.chunk * held / 32
    alone = min(tiling.rows, work.rows) * (loads + costs.latency + costs.chunk_latency * held / 32)
    multiplied = max(min(work.rows, tiling.warps * tiling.rows) * row * at_once, alone)
    slab_bytes = slab * tiling.column_bytes * at_once
    copied = slab_bytes / costs.copied
    if tiling.buffers == 1 and slabs * tiles_each > 1:
        copied = max(copied, slab_bytes / WAITED_RATE) + WAITED_CLOCKS
    return -(-each // tiling.blocks) * (tiles_each * slabs * (multiplied + copied) + costs.begun)


def best(clocks: Mapping[Tiling, float], work: Work, staged: int) -> list[Tiling]:
    """Return the tilings of the fewest clocks, of those alone that differ in more than cuts that make the same slabs."""
    kinds = dict[tuple[Tiling, tuple[int, int]], Tiling]()
    for tiling in sorted(clocks, key=lambda one: clocks[one]):
        slab = tiling.slab(work.columns, staged, turns=tiling.tiles(work) > 1, most=work.shared_bytes)
        kinds.setdefault((tiling._replace(cuts=0), slab), tiling)
        if len(kinds) == MOST:
            break
    return list(kinds.values())
