"""A CSR matrix in, chunks of 8 non-zeros out: the form in which `small_batch.cu` reads a sparse matrix in few bytes.

The columns are cut into slabs, and a row's non-zeros in a slab into chunks whose columns are equal modulo 8, their bucket. A
chunk's first column, over 8 a unit, is stored, then 7 steps of a few bits, in units, less one. A step that is too long is
bridged by zeros or begins another chunk; what a chunk lacks of 8 is zeros. Chunks of a row lie by their rank in the bucket,
then by the bucket, so that neighbouring lanes, which take a chunk each, gather x from different banks of shared memory.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from sparse_models.errors import InputError
from sparse_models.kernels.structure import Structure

MOST_COLUMNS = 7168  # of a slab: 32 bytes of x a column still fit a multiprocessor's shared memory, twice 16 bytes do
BRIDGED = 3  # zeros in a row at most; beyond, another chunk costs less
COUNTERS = 4096  # blocks that a launch with slabs may have
MOST_CHUNKS = 2**28  # their non-zeros are counted in 32 bits


class Width(NamedTuple):
    """How a chunk's columns are coded: bits of a step, and bytes of all of a chunk's words."""

    bits: int
    bytes: int


# In 3 bits: the first column is told from where it is expected in its row, within 128 units.
WIDTHS = {3: Width(3, 4), 4: Width(4, 6), 6: Width(6, 8), 16: Width(16, 16)}


class Form(NamedTuple):
    """What is chosen at packing: values in the tensor cores' order (16 bit alone), slabs, and bits of a step.

    None: that order where it can be, slabs in which every batch has a plan, and the fewest bytes.
    """

    matrix: bool | None = None
    slabs: int | None = None
    width: int | None = None


class Packed(NamedTuple):
    """A sparse matrix [rows, columns] in chunks; a product at a time, since all products share the counters of slabs.

    Values [8 x chunks]; words int32, and int16 first columns where steps have 4 bits; pointers [slabs x rows + 1] in chunks;
    slots [nnz], where each value of the CSR matrix lies; counters, zeros between products.
    """

    values: Tensor
    words: Tensor
    firsts: Tensor | None
    pointers: Tensor
    slots: Tensor
    counters: Tensor
    rows: int
    columns: int
    slabs: int
    slab_columns: int
    width: int
    matrix: bool

    @property
    def chunks(self) -> int:
        """The number of chunks."""
        return self.values.numel() // 8

    @property
    def bytes_read(self) -> int:
        """The bytes that a product reads of this."""
        read = (self.values, self.words, self.pointers, *([] if self.firsts is None else [self.firsts]))
        return sum(tensor.numel() * tensor.element_size() for tensor in read)


class _Lines(NamedTuple):
    """Non-zeros sorted by line, the row of a slab and a bucket, then by column: all [nnz], and how many lines there are."""

    order: Tensor  # where each was in the CSR matrix
    line: Tensor
    unit: Tensor
    lines: int


class _Cut(NamedTuple):
    """Non-zeros [nnz] cut into chunks, numbered by line: chunk and place in it, zeros before each, the line of each chunk."""

    place: Tensor  # 8 x chunk + place
    bridges: Tensor
    chunk_line: Tensor


def pack(structure: Structure, values: Tensor, form: Form | None = None) -> Packed:
    """Return the matrix with `values` [nnz] at the columns of `structure` in a form, as small_batch.form_for chooses it."""
    form = form or Form()
    matrix = values.element_size() == 2 if form.matrix is None else form.matrix
    if matrix and values.element_size() != 2:
        raise InputError(f"expected values in 16 bit for the tensor cores' order, got {values.dtype}; pack with matrix=False")
    slabs = form.slabs or -(-structure.columns // MOST_COLUMNS)
    slab_columns = -(-structure.columns // slabs // 16) * 16
    slabs = -(-structure.columns // slab_columns)
    lines = _lines(structure, slabs, slab_columns)
    cuts = {width: _cut(lines, WIDTHS[width].bits) for width in ([form.width] if form.width else WIDTHS)}
    per_chunk = {width: WIDTHS[width].bytes + 8 * values.element_size() for width in cuts}
    for width in sorted(cuts, key=lambda width: cuts[width].chunk_line.numel() * per_chunk[width]):
        packed = _packed(structure, values, lines, cuts[width], width, (slabs, slab_columns), matrix=matrix)
        if packed is not None:
            refill(packed, values)
            return packed
    raise InputError(
        f"expected rows with columns about evenly spaced for steps of {form.width} bits, got others; leave out width"
    )


def refill(packed: Packed, values: Tensor) -> None:
    """Put other `values` [nnz], in the order of the CSR matrix, into the packed one."""
    packed.values.index_copy_(0, packed.slots, values.detach())


def _lines(structure: Structure, slabs: int, slab_columns: int) -> _Lines:
    row = torch.repeat_interleave(structure.pointers.diff().long())
    column = structure.indices.long()
    slab = column // slab_columns
    inside = column - slab * slab_columns
    line = (slab * structure.rows + row) * 8 + inside % 8
    units = slab_columns // 8
    key, order = (line * units + inside // 8).sort()
    return _Lines(order, key // units, key % units, slabs * structure.rows * 8)


def _cut(lines: _Lines, bits: int) -> _Cut:
    """Cut lines into chunks, greedily: a step of more than 2^bits units is bridged by zeros, or begins another chunk."""
    step = lines.unit.diff(prepend=lines.unit[:1])
    begins = lines.line.diff(prepend=lines.line[:1] - 1) != 0
    bridges = ((step - 1) >> bits).clamp(min=0)
    begins |= bridges > BRIDGED
    bridges = bridges.masked_fill(begins, 0)
    ends = (bridges + 1).cumsum(0)
    piece = begins.cumsum(0) - 1
    starts = (ends - 1)[begins]
    length = torch.cat([starts, ends[-1:]]).diff() if starts.numel() else starts
    chunks = (length + 7) // 8
    first_chunk = chunks.cumsum(0) - chunks
    place = first_chunk[piece] * 8 + ends - 1 - starts[piece]
    return _Cut(place, bridges, torch.repeat_interleave(lines.line[begins], chunks))


def _packed(
    structure: Structure, values: Tensor, lines: _Lines, cut: _Cut, width: int, slab: tuple[int, int], *, matrix: bool
) -> Packed | None:
    """Order the chunks and code their columns; None where 3 bits do not reach a first column."""
    pointers, number = _ordered(cut.chunk_line, lines.lines)
    chunks = int(pointers[-1])
    if chunks > MOST_CHUNKS:
        raise InputError(f"expected at most {MOST_CHUNKS} chunks of 8 non-zeros, got {chunks}; split the matrix by rows")
    units = torch.full((chunks, 8), -1, device=values.device)
    own = number[cut.place // 8] * 8 + cut.place % 8
    units.view(-1)[own] = lines.unit
    bridged = cut.bridges.nonzero()[:, 0]
    count = cut.bridges[bridged]
    back = torch.repeat_interleave(count.cumsum(0), count) - torch.arange(int(count.sum()), device=count.device)  # .. 2 1
    at = torch.repeat_interleave(bridged, count)
    place = cut.place[at] - back
    units.view(-1)[number[place // 8] * 8 + place % 8] = lines.unit[at - 1] + ((cut.bridges[at] - back + 1) << width)
    bucket = torch.zeros(chunks, dtype=torch.int64, device=values.device)
    bucket[number] = cut.chunk_line % 8
    coded = _words(units, bucket, pointers, width, slab[1])
    if coded is None:
        return None
    slots = torch.empty_like(own)
    slots[lines.order] = _slots(own, pointers, chunks, values.element_size(), matrix=matrix)
    return Packed(
        values.new_zeros(8 * chunks), *coded, pointers.int(), slots, pointers.new_zeros(COUNTERS, dtype=torch.int32),
        structure.rows, structure.columns, *slab, width, matrix,
    )  # fmt: skip


def _ordered(chunk_line: Tensor, lines: int) -> tuple[Tensor, Tensor]:
    """Return row pointers in chunks, an even number in each row, and the number of each chunk in the order of lanes."""
    chunks = chunk_line.numel()
    of_line = torch.bincount(chunk_line, minlength=lines)
    rank = torch.arange(chunks, device=chunk_line.device) - (of_line.cumsum(0) - of_line)[chunk_line]
    of_row = of_line.view(-1, 8).sum(1)
    pointers = torch.cat([of_row.new_zeros(1), (of_row + of_row % 2).cumsum(0)])
    ranks = int(rank.max()) + 1 if chunks else 1
    order = ((chunk_line // 8 * ranks + rank) * 8 + chunk_line % 8).argsort()
    row = chunk_line[order] // 8
    number = torch.empty_like(order)
    number[order] = pointers[row] + torch.arange(chunks, device=order.device) - (of_row.cumsum(0) - of_row)[row]
    return pointers, number


def _words(
    units: Tensor, bucket: Tensor, pointers: Tensor, width: int, slab_columns: int
) -> tuple[Tensor, Tensor | None] | None:
    """Return the words of chunks whose non-zeros stand at `units` [chunks, 8], -1 behind the last, and int16 first columns."""
    steps = (units.diff(dim=1) - 1).masked_fill(units[:, 1:] < 0, 0)
    first = units[:, 0].clamp(min=0)
    places = torch.arange(7, device=units.device)
    if width == 16:
        fields = torch.cat([(first * 8 + bucket)[:, None], steps], 1)
        return _signed(fields.view(-1, 2)[:, 0] | fields.view(-1, 2)[:, 1] << 16), None
    if width == 6:
        low = (steps[:, :5] << (6 * places[:5])).sum(1)
        high = steps[:, 5] | steps[:, 6] << 6 | (first * 8 + bucket) << 12
        return _signed(torch.stack([low, high], 1).view(-1)), None
    coded = (steps << (width * places)).sum(1)
    if width == 4:
        return _signed(coded), (first * 8 + bucket).to(torch.int16)
    expected = _expected(pointers, slab_columns)
    beside = torch.where(units[:, 0] < 0, 0, first - expected)
    if beside.numel() and (int(beside.min()) < -128 or int(beside.max()) > 127):
        return None
    return _signed(coded | bucket << 21 | (beside & 255) << 24), None


def _expected(pointers: Tensor, slab_columns: int) -> Tensor:
    """Return the unit at which each chunk would begin if all of its row's were evenly spaced, rounded as the kernel does."""
    index, count = _in_row(pointers)
    # A number of Python over a tensor is the number times a reciprocal, which is rounded twice; the kernel divides.
    spread = torch.full_like(count, slab_columns // 8 * 8, dtype=torch.float32) / count.float()
    return ((index // 8).float() * spread).long()


def _in_row(pointers: Tensor) -> tuple[Tensor, Tensor]:
    """Return each chunk's number in its row, and how many there are in it."""
    count = torch.repeat_interleave(pointers.diff(), pointers.diff())
    begin = torch.repeat_interleave(pointers[:-1], pointers.diff())
    return torch.arange(len(count), device=count.device) - begin, count


def _slots(own: Tensor, pointers: Tensor, chunks: int, size: int, *, matrix: bool) -> Tensor:
    """Return where in the values a non-zero lies, from 8 x chunk + place."""
    chunk, place = own // 8, own % 8
    if size == 4:  # two halves of 16 bytes, so that neighbouring lanes' loads touch
        return (place // 4) * 4 * chunks + chunk * 4 + place % 4
    if not matrix:
        return own
    index, count = (tensor[chunk] for tensor in _in_row(pointers))
    lane = index % 8  # of the group of lanes that gathers one matrix of 8 by 8
    half = (count - (index - lane)).clamp(max=8) // 2
    return (chunk - lane + place % 2 * half + lane // 2) * 8 + place // 2 * 2 + lane % 2


def _signed(words: Tensor) -> Tensor:
    """Return the lower 32 bits of int64 words as int32."""
    return ((words & 0xFFFFFFFF ^ 0x80000000) - 0x80000000).to(torch.int32)
