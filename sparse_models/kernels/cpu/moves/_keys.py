"""Scores as integers that are in the same order, and the one above which a given number of them lies, without sorting."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

from llvmlite import ir

from sparse_models.kernels.cpu._arithmetic import INTEGER
from sparse_models.kernels.cpu._emit import Emitter

BINS = 2**11  # of a histogram: with its copies they stay in the first cache
COPIES = 4  # of a histogram, for lanes in turn: to add to a count that was just written takes as long as several others
HISTOGRAM_BYTES = 4 * BINS * COPIES


class Array(NamedTuple):
    """Keys by their places, none negative: one, as 64 bit, or a vector of those from one place on."""

    one: Callable[[Any], Any]
    vector: Callable[[Any], Any]


class Keys:
    """Keys of the numbers of an emitter's type: the bits of |number| and 1 more, so that 0 stands for what is excluded.

    What is to be excluded has all bits but the sign's: then nothing is left but the highest bit, and a signed key is below all.
    """

    def __init__(self, emit: Emitter) -> None:
        """Emit to where the emitter stands."""
        self.emit, self.width = emit, emit.width
        self.kind = ir.IntType(8 * emit.width)
        self.magnitude = 2 ** (8 * emit.width - 1) - 1
        infinity = 0x7F800000 if emit.width == 4 else 0x7FF0000000000000
        self.of_infinity, self.of_nan = infinity + 1, infinity + 2

    def at(self, address: Any, place: Any) -> Any:
        """Return the key, as 64 bit, of the number at a place of an array; that of a NaN where it is like what is excluded."""
        emit = self.emit
        number = emit.load(self.kind, emit.add(address, emit.times(place, self.width)))
        key = emit.builder.add(emit.builder.and_(number, self.constant(self.magnitude)), self.constant(1))
        key = key if self.width == 8 else emit.builder.sext(key, INTEGER)
        return emit.builder.select(emit.builder.icmp_signed("<", key, emit.constant(0)), emit.constant(self.of_nan), key)

    def vector_at(self, address: Any) -> Any:
        """Return the signed keys of a vector of numbers at an address."""
        emit, kind = self.emit, ir.VectorType(self.kind, self.emit.lanes)
        masked = emit.builder.and_(emit.load(kind, address), self.repeated(self.magnitude))
        return emit.builder.add(masked, self.repeated(1))

    def repeated(self, value: int) -> Any:
        """Return a vector of one integer."""
        return ir.Constant(ir.VectorType(self.kind, self.emit.lanes), [value] * self.emit.lanes)

    def of_numbers(self, address: Any, stride: Any = 1) -> "Array":
        """Return the keys of every so many numbers of an array."""
        emit, builder = self.emit, self.emit.builder

        def vector(place: Any) -> Any:
            if stride != 1:
                at = [builder.mul(emit.add(place, lane), stride) for lane in range(emit.lanes)]
                found = ir.Constant(ir.VectorType(self.kind, emit.lanes), ir.Undefined)
                for lane, one in enumerate(at):
                    key = self.cut(self.at(address, one))
                    found = builder.insert_element(found, key, ir.Constant(ir.IntType(32), lane))
                return found
            found = self.vector_at(emit.add(address, emit.times(place, self.width)))
            return builder.select(builder.icmp_signed("<", found, self.repeated(0)), self.repeated(self.of_nan), found)

        return Array(lambda place: self.at(address, place if stride == 1 else emit.times(place, stride)), vector)

    def of_keys(self, address: Any) -> "Array":
        """Return keys that an array has."""
        emit, kind = self.emit, ir.VectorType(self.kind, self.emit.lanes)
        return Array(
            lambda place: emit.index(address, place, self.width),
            lambda place: emit.load(kind, emit.add(address, emit.times(place, self.width))),
        )

    def constant(self, value: int) -> Any:
        """Return an integer of a key's width."""
        return ir.Constant(self.kind, value)

    def threshold(self, histogram: Any, count: Any, kept: Any, keys: "Array") -> tuple[Any, Any]:
        """Return the highest key above which fewer than `kept` of `count` lie, and how many that are equal to it are kept.

        Digit by digit, from the highest: a histogram of those that share the digits found so far says in which bin the next
        digit is. With `kept` 0 it is above all keys.
        """
        emit, builder = self.emit, self.emit.builder
        prefix, left, shift = emit.constant(0), kept, 8 * self.width
        while shift:
            size = min(11, shift)
            shift -= size
            is_first = shift + size == 8 * self.width
            with emit.loop(emit.constant(0), emit.constant(HISTOGRAM_BYTES), emit.vector_bytes) as place:
                emit.store(emit.zero(), emit.add(histogram, place.place))
            whole = builder.and_(count, emit.constant(-emit.lanes))
            with emit.loop(emit.constant(0), whole, emit.lanes) as group:
                found = keys.vector(group.place)
                if is_first:
                    for lane in range(emit.lanes):
                        copy = emit.add(histogram, lane % COPIES * 4 * BINS)
                        self._count(copy, builder.zext(emit.lane(found, lane), INTEGER), shift, size)
                else:
                    high = builder.lshr(found, ir.Constant(found.type, [shift + size] * emit.lanes))
                    near = builder.icmp_signed("==", high, emit.splat(self.cut(prefix), emit.lanes))

                    def each(lane: Any, number: Any, at: Any = group.place, low: tuple[int, int] = (shift, size)) -> None:  # noqa: ARG001
                        self._count(histogram, keys.one(emit.add(at, lane)), *low)

                    bits = builder.bitcast(near, ir.IntType(emit.lanes))
                    places_in(emit, builder.zext(bits, INTEGER), emit.constant(0), each)
            with emit.loop(whole, count) as place:
                own = keys.one(place.place)
                is_near = builder.icmp_signed("==", builder.lshr(own, emit.constant(shift + size)), prefix)
                with nullcontext() if is_first else builder.if_then(is_near):
                    self._count(histogram, own, shift, size)
            self._add_copies(histogram)
            highest = 2**size // (2 if is_first else 1) - 1  # no key is negative
            digit, left = self._descend(histogram, emit.constant(highest), left)
            prefix = builder.or_(builder.shl(prefix, emit.constant(size)), digit)
        return prefix, left

    def _add_copies(self, histogram: Any) -> None:
        emit, kind = self.emit, ir.VectorType(ir.IntType(32), self.emit.lanes)
        with emit.loop(emit.constant(0), emit.constant(4 * BINS), 4 * emit.lanes) as place:
            first, *others = (emit.add(histogram, place.place, copy * 4 * BINS) for copy in range(COPIES))
            total = emit.load(kind, first)
            for other in others:
                total = emit.builder.add(total, emit.load(kind, other))
            emit.store(total, first, align=4)

    def cut(self, key: Any) -> Any:
        """Return a key of 64 bit as wide as a number."""
        return key if self.width == 8 else self.emit.builder.trunc(key, self.kind)

    def _count(self, histogram: Any, key: Any, shift: int, size: int) -> None:
        emit = self.emit
        digit = emit.builder.and_(emit.builder.lshr(key, emit.constant(shift)), emit.constant(2**size - 1))
        put(emit, emit.add(emit.index(histogram, digit), 1), histogram, digit, 4)

    def _descend(self, histogram: Any, digit: Any, left: Any) -> tuple[Any, Any]:
        """Return in which bin, from one on downwards, the last of `left` keys lies, and how many are left in it."""
        emit, builder = self.emit, self.emit.builder
        before, head, body, after = builder.block, *(emit.function.append_basic_block() for _ in range(3))
        builder.branch(head)
        builder.position_at_end(head)
        place, missing = builder.phi(INTEGER), builder.phi(INTEGER)
        here = emit.index(histogram, place)
        builder.cbranch(builder.icmp_signed(">", missing, here), body, after)
        builder.position_at_end(body)
        for phi, first, following in ((place, digit, emit.add(place, -1)), (missing, left, builder.sub(missing, here))):
            phi.add_incoming(first, before)
            phi.add_incoming(following, body)
        builder.branch(head)
        builder.position_at_end(after)
        return place, missing


def put(emit: Emitter, integer: Any, address: Any, place: Any, width: int) -> None:
    """Write a 64-bit integer, cut to `width` bytes, to a place of an array."""
    cut = integer if width == 8 else emit.builder.trunc(integer, ir.IntType(8 * width))
    emit.store(cut, emit.add(address, emit.times(place, width)), align=width)


def places_in(emit: Emitter, bits: Any, count: Any, each: Callable[[Any, Any], None]) -> Any:
    """Emit `each` for the place of every bit that is set, from the lowest, with how many came before; return how many then."""
    builder = emit.builder
    before, head, body, after = builder.block, *(emit.function.append_basic_block() for _ in range(3))
    builder.branch(head)
    builder.position_at_end(head)
    rest, number = builder.phi(INTEGER), builder.phi(INTEGER)
    builder.cbranch(builder.icmp_signed("!=", rest, emit.constant(0)), body, after)
    builder.position_at_end(body)
    each(builder.cttz(rest, ir.Constant(ir.IntType(1), 1)), number)
    following = builder.and_(rest, emit.add(rest, -1)), emit.add(number, 1)
    for phi, first, then in zip((rest, number), (bits, count), following, strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(then, builder.block)
    builder.branch(head)
    builder.position_at_end(after)
    return number
