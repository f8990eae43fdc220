"""The kernel of a product that skips zero inputs: it lists the others, and goes through their columns of a matrix."""

from collections.abc import Sequence
from typing import Any

import torch
from llvmlite import ir

from sparse_models.kernels.cpu._arithmetic import INTEGER, computed, name_of
from sparse_models.kernels.cpu._compile import kernel, vector_bytes
from sparse_models.kernels.cpu._emit import CACHE_LINE
from sparse_models.kernels.cpu.few._instructions import Spreading

PANEL = 2**10  # columns whose inputs are listed at a time, on the stack of each thread
AHEAD = 8  # columns between the one that is used and the one that is asked for


class _Kernel:
    """The kernel of a product in the making."""

    def __init__(self, dtype: str, batch: int, chunks: int, *, sparse_lines: int) -> None:
        """Begin it for a number of samples, and vectors of a strip."""
        wide = computed(getattr(torch, dtype))
        self.emit = Spreading(ir.Module(), "kernel", name_of(wide), vector_bytes() // wide.itemsize)
        self.dtype, self.batch, self.chunks, self.sparse_lines = dtype, batch, chunks, sparse_lines
        self.width = getattr(torch, dtype).itemsize
        self.word = self.emit.lanes // 8  # bytes of a vector's bits
        registers = 16 if vector_bytes() != 32 else 8  # AVX2 has 16 in all
        self.together = min(chunks, max(1, 1 << (registers // batch).bit_length() - 1))  # vectors with sums of all samples
        emit, integer = self.emit, ir.IntType(32)
        places, numbers = (
            emit.builder.alloca(ir.ArrayType(kind, size))
            for kind, size in ((integer, PANEL + AHEAD), (emit.number, PANEL * batch))
        )
        self.places, self.numbers = (emit.builder.ptrtoint(one, INTEGER) for one in (places, numbers))

    def list_inputs(self, x: Any, columns: Any, first: Any, last: Any) -> Any:
        """Emit the list of columns, from one to below another, with an input that is not zero; return how many there are."""
        emit, builder = self.emit, self.emit.builder
        with emit.loop(first, last, 1, [emit.constant(0)]) as column:
            [count] = column.carried
            found = ir.Constant(ir.IntType(1), 0)
            for sample in range(self.batch):
                place = emit.add(emit.times(columns, sample), column.place)
                number = emit.load(emit.number, emit.add(x, emit.times(place, emit.width)))
                found = builder.or_(found, builder.fcmp_unordered("!=", number, ir.Constant(emit.number, 0.0)))
                self.put(number, self.numbers, emit.add(emit.times(count, self.batch), sample), emit.width)
            self.put(builder.trunc(column.place, ir.IntType(32)), self.places, count, 4)
            column.carried = [emit.add(count, builder.zext(found, INTEGER))]
        [count] = column.carried
        for number in range(AHEAD):  # which are asked for, and not used
            self.put(ir.Constant(ir.IntType(32), 0), self.places, emit.add(count, number), 4)
        return count

    def put(self, value: Any, array: Any, place: Any, width: int) -> None:
        """Write a value to an array on the stack, which is no other thread's."""
        address = self.emit.add(array, self.emit.times(place, width))
        self.emit.builder.store(value, self.emit.builder.inttoptr(address, ir.PointerType()))

    def got(self, kind: Any, array: Any, place: Any, width: int) -> Any:
        """Return a value of an array on the stack."""
        address = self.emit.add(array, self.emit.times(place, width))
        return self.emit.builder.load(self.emit.builder.inttoptr(address, ir.PointerType()), typ=kind)

    def ask_for(self, address: Any, lines: int) -> None:
        """Have so many cache lines from an address on brought into the caches."""
        for line in range(lines):
            self.emit.ask_for(self.emit.add(address, line * CACHE_LINE))

    def place(self, number: Any) -> Any:
        """Return a column of the list."""
        return self.emit.builder.zext(self.got(ir.IntType(32), self.places, number, 4), INTEGER)

    def multiply(self, sums: Sequence[Any], count: Any, first: int, values: Any, bits: Any, starts: Any) -> list[Any]:
        """Return sums [vectors, samples] plus the products with the listed columns, in a strip's vectors from one on."""
        emit, lanes = self.emit, self.emit.lanes
        pitch = self.chunks * lanes * self.width
        with emit.loop(emit.constant(0), count, 1, sums) as one:
            column, later = self.place(one.place), self.place(emit.add(one.place, AHEAD))
            inputs = [
                emit.splat(self.got(emit.number, self.numbers, emit.add(emit.times(one.place, self.batch), sample), emit.width))
                for sample in range(self.batch)
            ]
            if self.sparse_lines:
                vectors = self.spread(column, later, first, values, bits, starts)
            else:
                its, at = (emit.add(values, emit.times(part, pitch), first * lanes * self.width) for part in (later, column))
                self.ask_for(its, -(-self.together * lanes * self.width // CACHE_LINE))
                vectors = [
                    emit.widened_at(emit.add(at, number * lanes * self.width), lanes, self.dtype)
                    for number in range(self.together)
                ]
            one.carried = [
                emit.multiply_add(vector, inputs[sample], one.carried[number * self.batch + sample])
                for number, vector in enumerate(vectors)
                for sample in range(self.batch)
            ]
        return one.carried

    def spread(self, column: Any, later: Any, first: int, values: Any, bits: Any, starts: Any) -> list[Any]:
        """Return vectors of a sparse column, from one on."""
        emit, builder, word = self.emit, self.emit.builder, self.word
        kind = ir.VectorType(emit.number if self.width == 4 else ir.IntType(16), emit.lanes)
        self.ask_for(emit.add(bits, emit.times(later, word * self.chunks)), 1)
        self.ask_for(emit.add(values, emit.times(emit.index(starts, later), self.width)), self.sparse_lines)
        at = emit.add(values, emit.times(emit.index(starts, column), self.width))
        own, vectors = emit.add(bits, emit.times(column, word * self.chunks)), []
        for number in range(first + self.together):
            mask = emit.load(ir.IntType(emit.lanes), emit.add(own, word * number))
            if number >= first:
                vector = emit.load(kind, at)
                if word == 2:  # AVX-512, of VBMI2 in 16 bit, which spreads half the bits
                    vector = emit.spread(vector, mask)
                vector = vector if self.width == 4 else emit.widened(vector, self.dtype)
                vectors.append(vector if word == 2 else emit.spread_by_table(vector, mask))
            at = emit.add(at, emit.times(emit.ones(builder.zext(mask, INTEGER)), self.width))
        return vectors


@kernel
def product(dtype: str, batch: int, chunks: int, *, has_bias: bool, sparse_lines: int) -> int:
    """Return the address of the kernel: strips are shared out among as many tasks as there are threads."""
    own = _Kernel(dtype, batch, chunks, sparse_lines=sparse_lines)
    emit = own.emit
    x, result, bias, values, bits, starts, seen, rows, columns, strips, tasks = (emit.argument(place) for place in range(11))
    strip_rows = chunks * emit.lanes
    with emit.tasks(tasks) as task:
        some = emit.share(strips, task, tasks)
        with emit.loop(emit.constant(0), columns, PANEL, [emit.constant(0)]) as panel:
            last = emit.least(emit.add(panel.place, PANEL), columns)
            count = own.list_inputs(x, columns, panel.place, last)
            is_first = emit.builder.icmp_signed("==", panel.place, emit.constant(0))
            with emit.loop(*some) as strip:
                own_columns = emit.times(strip.place, columns)
                at = (
                    emit.add(values, 0 if sparse_lines else emit.times(own_columns, strip_rows * own.width)),
                    emit.add(bits, emit.times(own_columns, own.word * chunks)),
                    emit.add(starts, emit.times(own_columns, 4)),
                )
                for first in range(0, chunks, own.together):
                    row = emit.add(emit.times(strip.place, strip_rows), first * emit.lanes)
                    left = emit.builder.sub(rows, row)
                    targets = [
                        emit.add(result, emit.times(emit.add(emit.times(rows, sample), row), emit.width))
                        for sample in range(batch)
                    ]
                    begin = [emit.zero()] * own.together
                    if has_bias:
                        begin = emit.first_numbers(emit.add(bias, emit.times(row, emit.width)), own.together, left)
                    before = [emit.first_numbers(target, own.together, left) for target in targets]
                    sums = [
                        emit.builder.select(is_first, start, before[sample][number])
                        for number, start in enumerate(begin)
                        for sample in range(batch)
                    ]
                    sums = own.multiply(sums, count, first, *at)
                    for sample, target in enumerate(targets):
                        emit.write_first_numbers(sums[sample::batch], target, left)
            panel.carried = [emit.add(*panel.carried, count)]
        [total] = panel.carried
        with emit.builder.if_then(emit.builder.icmp_signed("==", task, emit.constant(0))):
            emit.store(total, seen)
    return emit.compiled()
