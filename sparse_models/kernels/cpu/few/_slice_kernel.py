"""The kernel of a product with weights in slices: their values, times numbers of the input from windows, added up."""

from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

import torch
from llvmlite import ir

from sparse_models.kernels.cpu._arithmetic import SHORT, computed, name_of
from sparse_models.kernels.cpu._compile import vector_bytes
from sparse_models.kernels.cpu._emit import CACHE_LINE
from sparse_models.kernels.cpu.few._instructions import Spreading

TABLES = 4  # vectors that a permuted window consists of: with 2, rows wait more often; with 8, permuting takes longer
FEW_SUMS = 8  # up to which each step of a window has sums of its own, so that none waits for the one before
MOST = 4  # samples at a time, of which all that a window takes stays in registers


class Way(NamedTuple):
    """How a matrix is put in slices."""

    window: int  # columns
    steps: int  # of a window
    vectors: int  # of rows in a slice
    pair: int  # weights of a row that a step multiplies
    is_permuted: bool  # whether numbers of the input are taken from vectors, or else loaded one by one


def emitter(dtype: str) -> Spreading:
    """Return the beginning of a kernel of slices whose values are stored in a type."""
    wide = computed(getattr(torch, dtype))
    return Spreading(ir.Module(), "kernel", name_of(wide), vector_bytes() // wide.itemsize)


class Slices:
    """The product of slices in the making."""

    def __init__(self, emit: Spreading, dtype: str, way: Way, addresses: Sequence[Any], samples: tuple[int, Any, Any]) -> None:
        """Begin it for values of a type, addresses as `arguments` has them, and samples, their columns and the rows."""
        self.emit, self.dtype, self.way = emit, dtype, way
        self.x, self.result, self.bias, self.pointers, self.windows, self.codes, self.values, self.rows = addresses
        self.batch, columns, self.height = samples
        self.width = getattr(torch, dtype).itemsize  # of what is stored
        self.x_width = self.width if way.pair > 1 else emit.width
        self.kind = ir.VectorType(ir.IntType(16), 2 * emit.lanes) if way.pair > 1 else emit.vector
        self.of_x = [emit.times(columns, number * self.x_width) if number else 0 for number in range(self.batch)]

    def multiply(self, some: Sequence[Any], *, is_direct: bool, has_bias: bool, relu: bool = False) -> None:
        """Emit the product of some slices, from one to below another."""
        emit, vectors = self.emit, range(self.way.vectors)
        with emit.loop(*some) as part:
            lanes = [emit.add(emit.times(part.place, self.way.vectors * emit.lanes), vector * emit.lanes) for vector in vectors]
            rows = [[] if is_direct else emit.indices(self.rows, lane, emit.lanes, 4) for lane in lanes]
            begin = [self._biases(*places) if has_bias else emit.zero() for places in zip(lanes, rows, strict=True)]
            ends = [emit.index(self.pointers, emit.add(part.place, side)) for side in (0, 1)]
            for first in range(0, self.batch, MOST):
                samples = range(first, min(first + MOST, self.batch))
                for number, total in enumerate(self._totals(ends, samples, begin)):
                    sample, vector = divmod(number, self.way.vectors)
                    passed = emit.passed(total, total) if relu else total
                    self._write(passed, samples[sample], lanes[vector], rows[vector])

    def _totals(self, ends: Sequence[Any], samples: Sequence[int], begin: Sequence[Any]) -> list[Any]:
        """Return for each sample the vectors of a slice's rows, which begin with some."""
        emit, count, (start, end) = self.emit, len(samples) * self.way.vectors, ends
        sets = self.way.steps if count * self.way.steps <= FEW_SUMS else 1  # of sums
        with emit.loop(start, end, 1, [*begin] * len(samples) + [emit.zero()] * (count * (sets - 1))) as window:
            window.carried = self._window(window.place, samples, window.carried)
        return [reduce(emit.plus, window.carried[number::count]) for number in range(count)]

    def _biases(self, lane: Any, rows: Sequence[Any]) -> Any:
        emit = self.emit
        if not rows:
            return emit.widened_at(emit.add(self.bias, emit.times(lane, self.width)), emit.lanes, self.dtype)
        if self.dtype in SHORT:
            return emit.widened(emit.gathered(self.bias, rows, ir.IntType(16)), self.dtype)
        return emit.gathered(self.bias, rows)

    def _write(self, total: Any, sample: int, lane: Any, rows: Sequence[Any]) -> None:
        emit = self.emit
        result = emit.add(self.result, emit.times(self.height, sample * emit.width)) if sample else self.result
        if not rows:
            emit.store(total, emit.add(result, emit.times(lane, emit.width)))
        for number, row in enumerate(rows):
            emit.store(emit.lane(total, number), emit.add(result, emit.times(row, emit.width)))

    def _window(self, window: Any, samples: Sequence[int], sums: Sequence[Any]) -> list[Any]:
        """Return sums [sets, samples, vectors] plus the products of a window's steps."""
        emit, (_, steps, vectors, pair, is_permuted), sums = self.emit, self.way, list(sums)
        count = emit.lanes * pair
        places = [emit.add(emit.times(window, steps * vectors * count), part * count) for part in range(steps * vectors)]
        own = [emit.add(self.values, emit.times(place, self.width)) for place in places]
        values = [emit.load(self.kind, at) if pair > 1 else emit.widened_at(at, count, self.dtype) for at in own]
        codes = [emit.add(self.codes, place) for place in places]
        found = [emit.codes(at, count) if is_permuted else emit.indices(at, emit.constant(0), count, 1) for at in codes]
        first = emit.add(self.x, emit.times(emit.index(self.windows, window), self.x_width))
        for number, sample in enumerate(samples):
            x = emit.add(first, self.of_x[sample])
            tables = [emit.load(self.kind, emit.add(x, CACHE_LINE * number)) for number in range(TABLES if is_permuted else 0)]
            for part, lanes in enumerate(found):
                numbers = emit.looked_up(tables, lanes) if is_permuted else emit.gathered(x, lanes)
                step, vector = divmod(part, vectors)
                at = ((step * len(samples) + number) * vectors + vector) % len(sums)
                sums[at] = (emit.dot if pair > 1 else emit.multiply_add)(values[part], numbers, sums[at])
        return sums
