"""What the kernels are written in: a thin layer over LLVM's instructions, with addresses as integers and loops as blocks.

LLVM is spoken to directly because only its vector types make it keep a row of accumulators in registers; loops over scalars, in
whatever language, it turns into something else. It fits the vectors to the machine: AVX-512, AVX2 or NEON from one source.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

from sparse_models.kernels._compile import compiled

INTEGER = ir.IntType(64)
NUMBERS = {"float32": ir.FloatType(), "float64": ir.DoubleType()}
BYTES = {"float32": 4, "float64": 8}
CACHE_LINE, TICKETS = 64, 2
SMALL_BYTES = 16  # of a vector that is put together number by number
FAST = ("reassoc", "contract")  # a sum may be taken in another order; NaN and infinity stay what they are


# The name of a function (address, bytes, whether it is a write) that is called before every access to memory: tests set it.
WATCH: str | None = None


class Emitter:
    """A function `name(arguments)` in the making: `arguments` points to 64-bit integers, addresses among them."""

    def __init__(self, module: ir.Module, name: str, dtype: str, lanes: int) -> None:
        """Start the function; numbers are of `dtype`, and a vector holds `lanes` of them."""
        self.module, self.number, self.width, self.lanes = module, NUMBERS[dtype], BYTES[dtype], lanes
        self.vector = ir.VectorType(self.number, lanes)
        self.function = ir.Function(module, ir.FunctionType(ir.VoidType(), [ir.PointerType()]), name)
        self.builder = ir.IRBuilder(self.function.append_basic_block())
        self.tickets = self.builder.ptrtoint(self.function.args[0], INTEGER)  # two integers: next task, next thread

    def argument(self, place: int) -> Any:
        """Return an argument by its place."""
        return self.builder.load(self._pointer(self.add(self.tickets, 8 * (TICKETS + place))), typ=INTEGER)

    def own_part(self, scratch: Any, size: Any) -> Any:
        """Return the address, a multiple of a cache line's bytes, of this thread's own `size` bytes of scratch memory."""
        thread = self._take_ticket(self.add(self.tickets, 8))
        return self.aligned(self.add(scratch, self.times(thread, size)))

    def aligned(self, address: Any) -> Any:
        """Return the first beginning of a cache line from an address on."""
        return self.builder.and_(self.add(address, CACHE_LINE - 1), self.constant(-CACHE_LINE))

    def divided(self, number: Any, by: Any) -> tuple[Any, Any]:
        """Return quotient and remainder of two integers."""
        quotient = self.builder.sdiv(number, by)
        return quotient, self.builder.sub(number, self.times(quotient, by))

    def share(self, whole: Any, part: Any, parts: Any) -> tuple[Any, Any]:
        """Return where a part of `whole` things begins and ends, all parts being as even as can be."""
        start, end = (self.builder.sdiv(self.times(whole, place), parts) for place in (part, self.add(part, 1)))
        return start, end

    def constant(self, value: int) -> Any:
        """Return an integer."""
        return ir.Constant(INTEGER, value)

    def add(self, *terms: Any) -> Any:
        """Return the sum of integers."""
        total = terms[0]
        for term in terms[1:]:
            total = self.builder.add(total, self.constant(term) if isinstance(term, int) else term)
        return total

    def times(self, left: Any, right: Any) -> Any:
        """Return the product of integers."""
        return self.builder.mul(left, self.constant(right) if isinstance(right, int) else right)

    def least(self, left: Any, right: Any) -> Any:
        """Return the smaller of two integers."""
        return self.builder.select(self.builder.icmp_signed("<", left, right), left, right)

    def _pointer(self, address: Any) -> Any:
        return self.builder.inttoptr(address, ir.PointerType())

    def load(self, kind: Any, address: Any) -> Any:
        """Return what is at an address; vectors need no alignment beyond that of their numbers."""
        self._watch(address, kind, is_write=False)
        loaded = self.builder.load(self._pointer(address), typ=kind)
        loaded.align = 2  # of the smallest that there is
        return loaded

    def store(self, value: Any, address: Any) -> None:
        """Write a number or a vector to an address."""
        self._watch(address, value.type, is_write=True)
        stored = self.builder.store(value, self._pointer(address))
        stored.align = self.width

    def _watch(self, address: Any, kind: Any, *, is_write: bool, count: Any = None) -> None:
        if WATCH:
            lanes, one = (kind.count, kind.element) if isinstance(kind, ir.VectorType) else (1, kind)
            width = one.width // 8 if isinstance(one, ir.IntType) else self.width
            watch = self._declared(WATCH, ir.VoidType(), [INTEGER] * 3)
            size = self.constant(lanes * width) if count is None else self.times(self.least(count, self.constant(lanes)), width)
            self.builder.call(watch, [address, size, self.constant(int(is_write))])

    def _declared(self, name: str, result: Any, arguments: list[Any]) -> Any:
        known = self.module.globals.get(name)
        return known or ir.Function(self.module, ir.FunctionType(result, arguments), name)

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

    def write(self, vectors: Sequence[Any], address: Any) -> None:
        """Write vectors, one after the other, from an address."""
        for number, vector in enumerate(vectors):
            self.store(vector, self.add(address, number * self.lanes * self.width))

    def first_numbers(self, address: Any, count: int, numbers: Any) -> list[Any]:
        """Return as many vectors, one after the other from an address, that hold so many numbers and zeros after them."""
        found = []
        for at, left in self._parts(address, count, numbers):
            self._watch(at, self.vector, is_write=False, count=left)
            arguments = [self._pointer(at), ir.Constant(ir.IntType(32), self.width), self._below(left), self.zero()]
            found.append(self._masked("load", self.vector, arguments))
        return found

    def write_first_numbers(self, vectors: Sequence[Any], address: Any, numbers: Any) -> None:
        """Write so many numbers of vectors, one after the other, from an address."""
        for vector, (at, left) in zip(vectors, self._parts(address, len(vectors), numbers), strict=True):
            self._watch(at, self.vector, is_write=True, count=left)
            arguments = [vector, self._pointer(at), ir.Constant(ir.IntType(32), self.width), self._below(left)]
            self._masked("store", ir.VoidType(), arguments)

    def _parts(self, address: Any, count: int, numbers: Any) -> Iterator[tuple[Any, Any]]:
        """Yield where each of so many vectors begins, and how many numbers are left there."""
        for number in range(count):
            yield self.add(address, number * self.lanes * self.width), self.add(numbers, -number * self.lanes)

    def _below(self, count: Any) -> Any:
        """Return which of a vector's lanes come before a number of them."""
        return self.builder.icmp_signed("<", self.counting(), self.integer_splat(count))

    def _masked(self, what: str, result: Any, arguments: list[Any]) -> Any:
        name = f"llvm.masked.{what}.v{self.lanes}f{8 * self.width}.p0"
        return self.builder.call(self._declared(name, result, [argument.type for argument in arguments]), arguments)

    def passed(self, condition: Any, value: Any) -> Any:
        """Return 0 where a vector's numbers are 0 or less, and another's elsewhere: for NaN, too, as PyTorch does."""
        return self.builder.select(self.builder.fcmp_ordered("<=", condition, self.zero()), self.zero(), value)

    def larger(self, left: Any, right: Any) -> Any:
        """Return the larger of two vectors' numbers, place by place."""
        return self.builder.select(self.builder.fcmp_ordered(">", left, right), left, right)

    def integer_splat(self, integer: Any) -> Any:
        """Return a vector of one integer repeated, cut to 32 bit."""
        return self.splat(self.builder.trunc(integer, ir.IntType(32)))

    def exp(self, vector: Any) -> Any:
        """Return e to the power of a vector's numbers, none above 0; what the type cannot hold normalized is its smallest so.

        e^x = 2^n e^r with n whole and |r| at most ln 2 / 2, where Taylor's series ends within the type's rounding after 7 terms
        in single precision and 13 in double. LLVM itself has a call of libm for each lane.
        """
        builder, digits, terms = self.builder, 23 if self.width == 4 else 52, 7 if self.width == 4 else 13
        lowest = -(2 ** (8 * self.width - digits - 2) - 2)  # the smallest power of 2 that is normal
        integers = ir.VectorType(ir.IntType(8 * self.width), self.lanes)
        scaled = builder.fmul(vector, self.constant_vector(1 / math.log(2)))
        whole = self.each("rint", self.larger(self.constant_vector(lowest), scaled))  # NaN is larger than nothing, and stays
        # ln 2 in two parts, of which the first has few enough digits that its multiples are exact.
        high = math.floor(math.log(2) * 2**12) / 2**12
        vector = self.larger(self.constant_vector(lowest * math.log(2)), vector)
        rest = self.multiply_add(whole, self.constant_vector(-high), vector)
        rest = self.multiply_add(whole, self.constant_vector(high - math.log(2)), rest)
        series = self.constant_vector(1 / math.factorial(terms))
        for power in reversed(range(terms)):
            series = self.multiply_add(series, rest, self.constant_vector(1 / math.factorial(power)))
        name = f"llvm.fptosi.sat.v{self.lanes}i{8 * self.width}.v{self.lanes}f{8 * self.width}"
        exponent = builder.call(self._declared(name, integers, [self.vector]), [whole])
        shifted = builder.add(exponent, ir.Constant(integers, [1 - lowest] * self.lanes))
        power_of_2 = builder.bitcast(builder.shl(shifted, ir.Constant(integers, [digits] * self.lanes)), self.vector)
        return builder.fmul(series, power_of_2)

    def counting(self) -> Any:
        """Return the vector of integers 0, 1, 2 ..."""
        return ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), list(range(self.lanes)))

    def constant_vector(self, value: float) -> Any:
        """Return a vector of one number repeated."""
        return ir.Constant(self.vector, [value] * self.lanes)

    def each(self, function: str, vector: Any) -> Any:
        """Return a function of LLVM's own, place by place."""
        declared = self._declared(f"llvm.{function}.v{self.lanes}f{8 * self.width}", self.vector, [self.vector])
        return self.builder.call(declared, [vector])

    def constant_number(self, value: float) -> Any:
        """Return a number."""
        return ir.Constant(self.number, value)

    def _take_ticket(self, address: Any) -> Any:
        """Return the integer at an address and add 1 to it, one thread after the other."""
        return self.builder.atomic_rmw("add", self._pointer(address), self.constant(1), "monotonic")

    def splat(self, one: Any, lanes: int | None = None) -> Any:
        """Return a vector of one number, or of one 32-bit integer, repeated."""
        undefined = ir.Constant(ir.VectorType(one.type, lanes or self.lanes), ir.Undefined)
        first = self.builder.insert_element(undefined, one, ir.Constant(ir.IntType(32), 0))
        return self._chosen(first, undefined, [0] * (lanes or self.lanes))

    def zero(self) -> Any:
        """Return a vector of zeros."""
        return self.constant_vector(0.0)

    def multiply_add(self, left: Any, right: Any, plus: Any) -> Any:
        """Return left * right + plus, rounded once."""
        name = f"llvm.fma.{self._suffix(left)}"
        return self.builder.call(self._declared(name, left.type, [left.type] * 3), [left, right, plus])

    def _suffix(self, value: Any) -> str:
        lanes = f"v{value.type.count}" if isinstance(value.type, ir.VectorType) else ""
        return f"{lanes}f{8 * self.width}"

    def total(self, vector: Any) -> Any:
        """Return the sum of a vector's numbers."""
        name = f"llvm.vector.reduce.fadd.{self._suffix(vector)}"
        declared = self._declared(name, self.number, [self.number, vector.type])
        return self.builder.call(declared, [ir.Constant(self.number, -0.0), vector], fastmath=FAST)

    def totals(self, vectors: Sequence[Any]) -> Any:
        """Return the sums of as many vectors as `together` says, as one vector of so many numbers.

        Halves of two vectors are added to one another until every vector has a lane: 3 to 4 instructions for each, where a
        sum by itself takes twice as many.
        """
        vectors, together = list(vectors), len(vectors)
        while len(vectors) > 1:
            vectors = [self._paired(vectors[place], vectors[place + 1], together) for place in range(0, len(vectors), 2)]
        [vector] = vectors
        for lanes in _halves(self.lanes, together):
            low, high = (self._chosen(vector, vector, range(first, first + lanes)) for first in (0, lanes))
            vector = self.builder.fadd(low, high)
        return vector

    def _paired(self, left: Any, right: Any, block: int) -> Any:
        """Return neighbours added up: in each block of lanes the left's, then the right's."""
        parts = []
        for first in (0, 1):
            own = [lane for start in range(0, self.lanes, block) for lane in range(start + first, start + block, 2)]
            half = block // 2
            lanes = [
                lane + side * self.lanes
                for start in range(0, len(own), half)
                for side in (0, 1)
                for lane in own[start : start + half]
            ]
            parts.append(self._chosen(left, right, lanes))
        return self.builder.fadd(*parts)

    def transposed(self, vectors: Sequence[Any]) -> list[Any]:
        """Return the columns of the square whose rows are given, as many as a vector has lanes."""
        vectors, half = list(vectors), self.lanes // 2
        low, high = (
            [lane + side * self.lanes for lane in range(start, start + half) for side in (0, 1)] for start in (0, half)
        )
        for _ in range(half.bit_length()):
            pairs = zip(vectors[:half], vectors[half:], strict=True)
            vectors = [self._chosen(*pair, lanes) for pair in pairs for lanes in (low, high)]
        return vectors

    def _chosen(self, left: Any, right: Any, lanes: Iterable[int]) -> Any:
        chosen = list(lanes)
        mask = ir.Constant(ir.VectorType(ir.IntType(32), len(chosen)), chosen)
        return self.builder.shuffle_vector(left, right, mask)

    def plus(self, left: Any, right: Any) -> Any:
        """Return the sum of numbers or of vectors."""
        return self.builder.fadd(left, right)

    @contextmanager
    def loop(self, start: Any, end: Any, step: int = 1, carried: Sequence[Any] = ()) -> "Iterator[Loop]":
        """Emit the block under `with` once for each integer from `start` to below `end`; see Loop."""
        builder = self.builder
        before, head, body, after = builder.block, *(self.function.append_basic_block() for _ in range(3))
        builder.branch(head)
        builder.position_at_end(head)
        place = builder.phi(INTEGER)
        phis = [builder.phi(value.type) for value in carried]
        builder.cbranch(builder.icmp_signed("<", place, end), body, after)
        builder.position_at_end(body)
        loop = Loop(place, phis)
        yield loop
        following = builder.add(place, self.constant(step))
        for phi, first, last in zip([place, *phis], [start, *carried], [following, *loop.carried], strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(last, builder.block)
        builder.branch(head)
        builder.position_at_end(after)
        loop.carried = phis

    @contextmanager
    def tasks(self, tasks: Any) -> Iterator[Any]:
        """Emit the block under `with` for each task that this thread gets: whoever is free takes the next."""
        builder = self.builder
        head, body, after = (self.function.append_basic_block() for _ in range(3))
        builder.branch(head)
        builder.position_at_end(head)
        task = self._take_ticket(self.tickets)
        builder.cbranch(builder.icmp_signed("<", task, tasks), body, after)
        builder.position_at_end(body)
        yield task
        builder.branch(head)
        builder.position_at_end(after)

    def compiled(self) -> int:
        """End the function, and return the address of its compiled code."""
        self.builder.ret_void()
        return compiled(str(self.module), self.function.name)


class Loop:
    """A loop's integer `place` and what it carries: set `carried` in the block to hand it on; after it, it is what is left."""

    def __init__(self, place: Any, carried: list[Any]) -> None:
        """Start with the values that come in."""
        self.place, self.carried = place, list(carried)


def _halves(lanes: int, least: int) -> Iterator[int]:
    """Yield half of so many lanes, a quarter, and so on down to the least."""
    while lanes > least:
        lanes //= 2
        yield lanes
