"""Product of a sparse matrix with few samples: a bit for each weight, and the values of those that are there, in their order.

No index is read, and nothing is looked up: a processor with AVX-512 spreads the next values over a vector where bits are set,
in one instruction, and multiplies it with a whole vector of the input. So arithmetic is dense, and bytes are sparse: at a
sparsity of s, 4 (1 - s) + 1/8 of them a weight in float32, and 2 (1 - s) + 1/8 in 16 bit. A weight that is not there multiplies
0 with its input, which gives NaN where that is infinite, as in a dense product.

Rows lie in strips, those in panels of columns, so narrow that the input's part stays in the first cache, and those in pairs
of rows whose words of bits, and values, take turns: all that a thread reads follows one another in memory. Values in
16 bit are multiplied, two at a time, by the instruction for that, where there is one for bfloat16; else they become float32.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from llvmlite import ir
from torch import Tensor
from torch.nn import functional

from sparse_models.kernels.cpu._arithmetic import computed, name_of
from sparse_models.kernels.cpu._compile import has, kernel, vector_bytes
from sparse_models.kernels.cpu._emit import CACHE_LINE
from sparse_models.kernels.cpu.few._instructions import Spreading
from sparse_models.kernels.structure import Structure

LARGEST_BATCH = 8  # samples: for each of them and of two rows there is a sum in a register
WORD, PAIR, STRIP = 64, 2, 64  # columns of a word of bits, rows that take turns, rows of a strip
PANEL_BYTES = 2**12  # of a sample's part: with 8 samples 32 KiB
AHEAD = 2**11  # bytes between what is used and what is asked for: processors by themselves ask too late
SEVERAL, MANY = 4, 4  # with more samples than so many, cache lines that are asked for at a time


class Bitmap(NamedTuple):
    """A matrix [rows, columns]: values and bits, in the order of strips, panels, pairs of rows, words of each, and columns."""

    values: Tensor  # [nnz], and a vector of zeros after them
    bits: Tensor  # a word for each 64 columns, int64; rows are filled up to pairs
    starts: Tensor  # where each strip's values begin [strips], int32
    sources: Tensor  # where each value was among the non-zeros [nnz], int32
    height: int  # rows
    width: int  # columns

    @property
    def kernel(self) -> str:
        """The name of its kernel."""
        return "bitmap"

    @property
    def bytes_read(self) -> int:
        """The bytes that a product reads of it."""
        return sum(tensor.nbytes for tensor in (self.values, self.bits, self.starts))

    def work(self, batch: int) -> int:
        """Return how many weights of the sliced form take as long."""
        return self.height * self.width * (4 + batch) // 16

    def refill(self, values: Tensor) -> None:
        """Put other `values` [nnz] in the place of its own."""
        torch.index_select(values.detach(), 0, self.sources, out=self.values[: len(self.sources)])

    def taken(self, x: Tensor) -> Tensor:
        """Return x [batch, columns] as the kernel reads it: whole words of columns."""
        x = (x if _has_dot(x.dtype) else x.to(computed(x.dtype))).contiguous()
        return functional.pad(x, (0, -self.width % WORD)) if self.width % WORD else x

    def room(self, batch: int) -> Tensor:
        """Return memory for a product: whole pairs of rows."""
        return self.values.new_empty(batch, -(-self.height // PAIR) * PAIR, dtype=computed(self.values.dtype))

    def given(self, result: Tensor) -> Tensor:
        """Return a product [batch, rows], rounded once."""
        result = result if result.shape[1] == self.height else result[:, : self.height].contiguous()
        return result.to(self.values.dtype)

    def function(self, batch: int, *, has_bias: bool) -> int:
        """Return the address of the kernel for so many samples."""
        dtype = self.values.dtype
        return _product(name_of(dtype), batch, has_bias=has_bias, has_dot=_has_dot(dtype))

    def arguments(self, x: Tensor, result: Tensor, bias: Tensor | None, team: int) -> list[Tensor | int]:  # noqa: ARG002
        """Return what the kernel is given; its first three are x, result and bias."""
        if bias is None:
            bias = result
        elif self.height % PAIR:
            bias = functional.pad(bias, (0, 1))
        rows, words = result.shape[1], -(-self.width // WORD)
        panels = -(-words // _panel(x.dtype))
        return [x, result, bias, self.values, self.bits, self.starts, rows, words, len(self.starts), panels]


def is_possible(dtype: torch.dtype) -> bool:
    """Tell whether the processor has an instruction that spreads values of a type over a vector: AVX-512, VBMI2 in 16 bit."""
    features = ("avx512vbmi2", "avx512bw", "avx512vl") if dtype.itemsize == 2 else ("avx512f",)
    return dtype != torch.float64 and vector_bytes() == 64 and all(map(has, features))


def _has_dot(dtype: torch.dtype) -> bool:
    """Tell whether pairs of products of a 16-bit type are added up in float32 by one instruction."""
    return dtype == torch.bfloat16 and has("avx512bf16")


def _panel(x_dtype: torch.dtype) -> int:
    """Return the words of a panel, for numbers of the input as the kernel reads them."""
    return PANEL_BYTES // (WORD * x_dtype.itemsize)


def pack(structure: Structure, values: Tensor) -> Bitmap:
    """Return the matrix that holds `values` [nnz] as bits and values; each row's columns must be in order."""
    rows, words, nnz = -(-structure.rows // PAIR) * PAIR, -(-structure.columns // WORD), len(values)
    on, lengths = values.device, structure.pointers.diff()
    row = torch.repeat_interleave(torch.arange(structure.rows, device=on), lengths)
    kept = torch.zeros(rows * words * WORD, dtype=torch.uint8, device=on)
    kept[torch.add(structure.indices, row, alpha=words * WORD)] = 1
    powers = torch.tensor([1 << bit for bit in range(8)], dtype=torch.uint8, device=on)
    place = _places(rows, words, _panel(values.dtype if _has_dot(values.dtype) else torch.float32), on)
    bits = torch.empty(rows * words, dtype=torch.int64, device=on)
    bits[place] = (kept.view(-1, 8) * powers).sum(1, dtype=torch.uint8).view(torch.int64)
    # The values of a word follow one another before and after, so that each is moved as far as its word.
    counts = kept.view(-1, WORD).sum(1)
    moved = torch.empty_like(counts)
    moved[place] = counts
    distance = (moved.cumsum(0) - moved)[place] - (counts.cumsum(0) - counts)
    numbers = torch.arange(nnz, dtype=torch.int32, device=on)
    sources = torch.empty_like(numbers)
    sources[torch.repeat_interleave(distance, counts, output_size=nnz).add_(numbers)] = numbers
    held = values.new_zeros(nnz + vector_bytes() // values.element_size())
    packed = Bitmap(held, bits, structure.pointers[:-1:STRIP].int().contiguous(), sources, structure.rows, structure.columns)
    packed.refill(values)
    return packed


def _places(rows: int, words: int, widest: int, on: torch.device) -> Tensor:
    """Return where each word of bits lies, the words numbered row by row, in panels at most `widest` words wide."""
    row, word = torch.arange(rows, device=on)[:, None], torch.arange(words, device=on)
    strip, panel = row // STRIP, word // widest
    strip_rows, panel_words = (rows - strip * STRIP).clamp_(max=STRIP), (words - panel * widest).clamp_(max=widest)
    place = strip * STRIP * words + panel * widest * strip_rows + row % STRIP // PAIR * PAIR * panel_words
    return (place + word % widest * PAIR + row % PAIR).view(-1)


class _Kernel:
    """The kernel of a product in the making."""

    def __init__(self, dtype: str, batch: int, *, has_dot: bool) -> None:
        """Begin it for a number of samples."""
        self.emit = Spreading(ir.Module(), "kernel", "float32", 16)
        self.dtype, self.batch, self.has_dot = dtype, batch, has_dot
        self.width = 4 if dtype == "float32" else 2
        self.lanes, self.x_width = (32, 2) if has_dot else (16, 4)
        self.sets = 2 if batch == 1 else 1  # of sums, so that a multiply-add need not wait for the one before

    def spread(self, word: Any, first: int, address: Any) -> Any:
        """Return the values of a word's bits from one on as a vector, those of the whole word being at an address."""
        emit, builder = self.emit, self.emit.builder
        bits = builder.trunc(builder.lshr(word, emit.constant(first)), ir.IntType(self.lanes))
        if first:
            before = emit.ones(builder.and_(word, emit.constant((1 << first) - 1)))
            address = emit.add(address, emit.times(before, self.width))
        kind = ir.VectorType(emit.number if self.width == 4 else ir.IntType(8 * self.width), self.lanes)
        vector = emit.spread(emit.load(kind, address), bits)
        return vector if self.has_dot or self.width == 4 else emit.widened(vector, self.dtype)

    def add(self, value: Any, x: Any, total: Any) -> Any:
        """Return a sum plus a vector's products with that of a sample at an address."""
        emit = self.emit
        if not self.has_dot:
            return emit.multiply_add(value, emit.load(emit.vector, x), total)
        return emit.dot(value, emit.load(value.type, x), total)

    def pair(self, words: Any, samples: Sequence[Any], bits: Any, values: Any) -> tuple[Any, Any, list[Any]]:
        """Return where a pair of rows ends, of bits and values, and for each row and sample the vector of its sums."""
        emit = self.emit
        nothing = [emit.zero()] * (PAIR * self.batch * self.sets)
        with emit.loop(emit.constant(0), words, 1, [bits, values, *nothing]) as word:
            bits, values, *sums = word.carried
            for line in range(MANY if self.batch > SEVERAL else 1):
                emit.ask_for(emit.add(values, AHEAD + CACHE_LINE * line))
            offset = emit.times(word.place, WORD * self.x_width)
            for row in range(PAIR):
                own = emit.load(ir.IntType(64), emit.add(bits, 8 * row))
                for first in range(0, WORD, self.lanes):
                    vector = self.spread(own, first, values)
                    for sample, x in enumerate(samples):
                        at = (row * self.batch + sample) * self.sets + first // self.lanes % self.sets
                        sums[at] = self.add(vector, emit.add(x, offset, first * self.x_width), sums[at])
                values = emit.add(values, emit.times(emit.ones(own), self.width))
            word.carried = [emit.add(bits, 8 * PAIR), values, *sums]
        bits, values, *sums = word.carried
        if self.sets == 2:
            sums = [emit.plus(*pair) for pair in zip(sums[::2], sums[1::2], strict=True)]
        return bits, values, sums


@kernel
def _product(dtype: str, batch: int, *, has_bias: bool, has_dot: bool) -> int:
    """Return the address of the kernel of a product with so many samples: a task is a strip of rows."""
    own = _Kernel(dtype, batch, has_dot=has_dot)
    emit = own.emit
    x, result, bias, values, bits, starts, rows, words, strips, panels = (emit.argument(place) for place in range(10))
    widest, few = PANEL_BYTES // (WORD * own.x_width), ir.VectorType(emit.number, PAIR)
    x_step = emit.times(words, WORD * own.x_width)
    with emit.tasks(strips) as strip:
        first_row = emit.times(strip, STRIP)
        strip_rows = emit.least(emit.constant(STRIP), emit.builder.sub(rows, first_row))
        own_bits = emit.add(bits, emit.times(emit.times(first_row, words), 8))
        own_values = emit.add(values, emit.times(emit.index(starts, strip), own.width))
        with emit.loop(emit.constant(0), panels, 1, [own_bits, own_values]) as panel:
            first_word = emit.times(panel.place, widest)
            panel_words = emit.least(emit.constant(widest), emit.builder.sub(words, first_word))
            first_x = emit.add(x, emit.times(first_word, WORD * own.x_width))
            samples = [emit.add(first_x, emit.times(x_step, sample)) for sample in range(batch)]
            is_first = emit.builder.icmp_signed("==", panel.place, emit.constant(0))
            with emit.loop(emit.constant(0), strip_rows, PAIR, panel.carried) as pair:
                *pair.carried, sums = own.pair(panel_words, samples, *pair.carried)
                row = emit.add(first_row, pair.place)
                begin = emit.widened_at(emit.add(bias, emit.times(row, own.width)), PAIR, dtype) if has_bias else None
                for sample in range(batch):
                    total = emit.totals(sums[sample::batch])
                    at = emit.add(result, emit.times(emit.add(emit.times(rows, sample), row), emit.width))
                    first = ir.Constant(few, None) if begin is None else begin
                    before = emit.builder.select(is_first, first, emit.load(few, at))
                    emit.store(emit.plus(before, total), at)
            panel.carried = pair.carried
    return emit.compiled()
