"""What the kernels are written in: a thin layer over LLVM's instructions, with addresses as integers and loops as blocks.

LLVM is spoken to directly because only its vector types make it keep a row of accumulators in registers; loops over scalars, in
whatever language, it turns into something else. It fits the vectors to the machine: AVX-512, AVX2 or NEON from one source.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from llvmlite import ir

from sparse_models.kernels.cpu._arithmetic import INTEGER, SHORT
from sparse_models.kernels.cpu._compile import compiled
from sparse_models.kernels.cpu._flow import HEADER, Flow

CACHE_LINE = 64
SMALL_BYTES = 16  # of a vector that is put together number by number


# The name of a function (address, bytes, whether it is a write) that is called before every access to memory: tests set it.
WATCH: str | None = None


class Emitter(Flow):
    """A function in the making, with memory: see its bases."""

    def argument(self, place: int) -> Any:
        """Return an argument by its place."""
        return self.builder.load(self._pointer(self.add(self.header, 8 * (HEADER + place))), typ=INTEGER)

    def own_part(self, scratch: Any, size: Any) -> Any:
        """Return the address, a multiple of a cache line's bytes, of this thread's own `size` bytes of scratch memory.

        It is the thread's by its number, so that at every call it meets what it has left in its own caches.
        """
        return self.aligned(self.add(scratch, self.times(self.thread(), size)))

    def aligned(self, address: Any) -> Any:
        """Return the first beginning of a cache line from an address on."""
        return self.builder.and_(self.add(address, CACHE_LINE - 1), self.constant(-CACHE_LINE))

    def load(self, kind: Any, address: Any) -> Any:
        """Return what is at an address; vectors need no alignment beyond that of their numbers."""
        self._watch(address, kind, is_write=False)
        loaded = self.builder.load(self._pointer(address), typ=kind)
        loaded.align = 2  # of the smallest that there is
        return loaded

    def store(self, value: Any, address: Any, align: int | None = None) -> None:
        """Write a number, a vector, or with its own alignment an integer to an address."""
        self._watch(address, value.type, is_write=True)
        stored = self.builder.store(value, self._pointer(address))
        stored.align = align or self.width

    def ask_for(self, address: Any) -> None:
        """Have the cache line of an address, which need not be anyone's, brought into the caches."""
        integer = ir.IntType(32)
        name, kinds = "llvm.prefetch.p0", [ir.PointerType(), *[integer] * 3]
        what = [ir.Constant(integer, number) for number in (0, 3, 1)]  # to be read, in all caches, data
        self.builder.call(self._declared(name, ir.VoidType(), kinds), [self._pointer(address), *what])

    def _watch(self, address: Any, kind: Any, *, is_write: bool, count: Any = None) -> None:
        if WATCH:
            lanes, one = (kind.count, kind.element) if isinstance(kind, ir.VectorType) else (1, kind)
            width = one.width // 8 if isinstance(one, ir.IntType) else self.width
            watch = self._declared(WATCH, ir.VoidType(), [INTEGER] * 3)
            size = self.constant(lanes * width) if count is None else self.times(self.least(count, self.constant(lanes)), width)
            self.builder.call(watch, [address, size, self.constant(int(is_write))])

    def index(self, address: Any, place: Any, width: int = 4) -> Any:
        """Return the integer of `width` bytes at a place of an array, as 64 bit."""
        return self.builder.sext(self.load(ir.IntType(8 * width), self.add(address, self.times(place, width))), INTEGER)

    def indices(self, address: Any, place: Any, count: int, width: int) -> list[Any]:
        """Return `count` integers from a place of an array on, none below 0, by one load for each eight bytes.

        Loads are what the products are short of: on Zen 5 this is worth 7 to 20 % of them.
        """
        each = min(count, 8 // width)
        packed = [
            self.load(ir.IntType(8 * each * width), self.add(address, self.times(self.add(place, first), width)))
            for first in range(0, count, each)
        ]
        mask = self.constant((1 << 8 * width) - 1)
        return [
            self.builder.and_(self.builder.lshr(self._widened(word), self.constant(8 * width * number)), mask)
            for word in packed
            for number in range(each)
        ]

    def _widened(self, word: Any) -> Any:
        return word if word.type == INTEGER else self.builder.zext(word, INTEGER)

    def gathered(self, address: Any, places: Sequence[Any], kind: Any = None) -> Any:
        """Return a vector of the numbers, or of what else is of a kind, at some places of an array.

        Put together from single loads: the processors' own gathers take longer, and numbers one by one twice the loads.
        """
        kind, width = kind or self.number, kind.width // 8 if kind else self.width
        vector = ir.Constant(ir.VectorType(kind, len(places)), ir.Undefined)
        for lane, place in enumerate(places):
            number = self.load(kind, self.add(address, self.times(place, width)))
            vector = self.builder.insert_element(vector, number, ir.Constant(ir.IntType(32), lane))
        return vector

    def vectors(self, address: Any, count: int) -> list[Any]:
        """Return as many vectors, one after the other from an address."""
        return [self.load(self.vector, self.add(address, number * self.lanes * self.width)) for number in range(count)]

    def widened_at(self, address: Any, count: int, dtype: str) -> Any:
        """Return a vector of so many numbers, stored in some type from an address on."""
        if dtype in SHORT:
            return self.widened(self.load(ir.VectorType(ir.IntType(16), count), address), dtype)
        return self.load(ir.VectorType(self.number, count), address)

    def write(self, vectors: Sequence[Any], address: Any) -> None:
        """Write vectors, one after the other, from an address."""
        for number, vector in enumerate(vectors):
            self.store(vector, self.add(address, number * self.lanes * self.width))

    def clear(self, tile: Any, first: Any, last: Any, chunks: int) -> None:
        """Write zeros to the rows, of so many vectors each, from one to below another of a packed tile."""
        with self.loop(first, last) as row:
            self.write([self.zero()] * chunks, self.add(tile, self.times(row.place, chunks * self.lanes * self.width)))

    def first_numbers(self, address: Any, count: int, numbers: Any) -> list[Any]:
        """Return as many vectors, one after the other from an address, that hold so many numbers and zeros after them."""
        found = []
        for at, left in self._parts(address, count, numbers):
            self._watch(at, self.vector, is_write=False, count=left)
            arguments = [self._pointer(at), ir.Constant(ir.IntType(32), self.width), self.below(left), self.zero()]
            found.append(self._masked("load", self.vector, arguments))
        return found

    def write_first_numbers(self, vectors: Sequence[Any], address: Any, numbers: Any) -> None:
        """Write so many numbers of vectors, one after the other, from an address."""
        for vector, (at, left) in zip(vectors, self._parts(address, len(vectors), numbers), strict=True):
            self.write_first(vector, at, left)

    def write_first(self, vector: Any, address: Any, count: Any) -> None:
        """Write so many of a vector's numbers, or of its integers, to an address."""
        self._watch(address, vector.type, is_write=True, count=count)
        one = vector.type.element
        width = one.width // 8 if isinstance(one, ir.IntType) else self.width
        arguments = [vector, self._pointer(address), ir.Constant(ir.IntType(32), width), self.below(count)]
        self._masked("store", ir.VoidType(), arguments)

    def _parts(self, address: Any, count: int, numbers: Any) -> Iterator[tuple[Any, Any]]:
        """Yield where each of so many vectors begins, and how many numbers are left there."""
        for number in range(count):
            yield self.add(address, number * self.lanes * self.width), self.add(numbers, -number * self.lanes)

    def below(self, count: Any) -> Any:
        """Return which of a vector's lanes come before a number of them, however large."""
        return self.builder.icmp_signed("<", self.counting(), self.integer_splat(self.least(count, self.constant(self.lanes))))

    def _masked(self, what: str, result: Any, arguments: list[Any]) -> Any:
        one = (arguments[0] if what == "store" else arguments[-1]).type.element
        kind = f"i{one.width}" if isinstance(one, ir.IntType) else f"f{8 * self.width}"
        name = f"llvm.masked.{what}.v{self.lanes}{kind}.p0"
        return self.builder.call(self._declared(name, result, [argument.type for argument in arguments]), arguments)

    def either(self, condition: Any, one: Callable[[], list[Any]], other: Callable[[], list[Any]]) -> list[Any]:
        """Return the vectors that `one` emits, or, where a condition does not hold, as many that `other` does."""
        found = list[tuple[list[Any], Any]]()
        with self.builder.if_else(condition) as (then, otherwise):
            for branch, emitted in ((then, one), (otherwise, other)):
                with branch:
                    found.append((emitted(), self.builder.block))
        chosen = [self.builder.phi(self.vector) for _ in found[0][0]]
        for vectors, block in found:
            for phi, vector in zip(chosen, vectors, strict=True):
                phi.add_incoming(vector, block)
        return chosen

    def compiled(self) -> int:
        """End the function, and return the address of its compiled code."""
        self.builder.ret_void()
        return compiled(str(self.module), self.function.name, self.phase)
