"""What the kernels compute with: numbers and vectors of them in, numbers and vectors out, no memory."""

import math
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import torch
from llvmlite import ir

from sparse_models.kernels.cpu._constants import integer, integers, repeated


class Bfloat(ir.Type):  # type: ignore[misc]  # llvmlite is untyped
    """LLVM's type of bfloat16, of which llvmlite has no class."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bfloat)

    __hash__ = ir.Type.__hash__


INTEGER, BFLOAT = ir.IntType(64), Bfloat()
NUMBERS = {"float32": ir.FloatType(), "float64": ir.DoubleType()}
BYTES = {"float32": 4, "float64": 8}
SHORT = {"bfloat16": BFLOAT, "float16": ir.HalfType()}  # numbers that are stored, and become float32 to be computed with
LN_2 = Fraction("0.693147180559945309417232121458")
FAST = ("reassoc", "contract")  # a sum may be taken in another order; NaN and infinity stay what they are


def name_of(dtype: torch.dtype) -> str:
    """Return a dtype's name as the kernels have it."""
    return str(dtype).removeprefix("torch.")


def computed(dtype: torch.dtype) -> torch.dtype:
    """Return the type in which numbers of a type are computed with, and added up."""
    return torch.float32 if dtype.itemsize == 2 else dtype


class Arithmetic:
    """LLVM's instructions on 64-bit integers, on numbers of one dtype, and on vectors of `lanes` of them."""

    def __init__(self, module: ir.Module, builder: ir.IRBuilder, dtype: str, lanes: int) -> None:
        """Emit to where `builder` stands."""
        self.module, self.builder = module, builder
        self.number, self.width, self.lanes = NUMBERS[dtype], BYTES[dtype], lanes
        self.vector = ir.VectorType(self.number, lanes)

    @property
    def vector_bytes(self) -> int:
        """The bytes of a vector."""
        return self.lanes * self.width

    def constant(self, value: int) -> Any:
        """Return an integer."""
        return integer(value)

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

    def divided(self, number: Any, by: Any) -> tuple[Any, Any]:
        """Return quotient and remainder of two integers."""
        quotient = self.builder.sdiv(number, by)
        return quotient, self.builder.sub(number, self.times(quotient, by))

    def padded(self, number: Any, of: int) -> Any:
        """Return the first multiple of `of` from an integer, not below 0, on."""
        return self.times(self.over(number, of), of)

    def over(self, number: Any, of: int) -> Any:
        """Return how many times `of` holds an integer, not below 0: its quotient rounded up."""
        return number if of == 1 else self.builder.sdiv(self.add(number, of - 1), self.constant(of))

    def share(self, whole: Any, part: Any, parts: Any) -> tuple[Any, Any]:
        """Return where a part of `whole` things begins and ends, all parts being as even as can be."""
        start, end = (self.builder.sdiv(self.times(whole, place), parts) for place in (part, self.add(part, 1)))
        return start, end

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
        # ln 2 in two parts: the first has so few digits that its multiples are exact, both together have more than a number.
        high = Fraction(math.floor(LN_2 * 2**12), 2**12)
        vector = self.larger(self.constant_vector(lowest * math.log(2)), vector)
        rest = self.multiply_add(whole, self.constant_vector(float(-high)), vector)
        rest = self.multiply_add(whole, self.constant_vector(float(high - LN_2)), rest)
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
        return integers(tuple(range(self.lanes)))

    def constant_vector(self, value: float) -> Any:
        """Return a vector of one number repeated."""
        return repeated(self.number, self.lanes, float(value).hex())

    def each(self, function: str, vector: Any) -> Any:
        """Return a function of LLVM's own, place by place."""
        declared = self._declared(f"llvm.{function}.v{self.lanes}f{8 * self.width}", self.vector, [self.vector])
        return self.builder.call(declared, [vector])

    def splat(self, one: Any, lanes: int | None = None) -> Any:
        """Return a vector of one number, or of one 32-bit integer, repeated."""
        undefined = ir.Constant(ir.VectorType(one.type, lanes or self.lanes), ir.Undefined)
        first = self.builder.insert_element(undefined, one, ir.Constant(ir.IntType(32), 0))
        return self.chosen(first, undefined, [0] * (lanes or self.lanes))

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
            low, high = (self.chosen(vector, vector, range(first, first + lanes)) for first in (0, lanes))
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
            parts.append(self.chosen(left, right, lanes))
        return self.builder.fadd(*parts)

    def some(self, vector: Any, first: int, count: int) -> Any:
        """Return so many of a vector's numbers from one on, as a vector."""
        return self.chosen(vector, vector, range(first, first + count))

    def lane(self, vector: Any, lane: int) -> Any:
        """Return one of a vector's numbers."""
        return self.builder.extract_element(vector, ir.Constant(ir.IntType(32), lane))

    def transposed(self, vectors: Sequence[Any]) -> list[Any]:
        """Return the columns of the square whose rows are given: what stands in a place fills as many lanes as there are."""
        half, middle, each = len(vectors) // 2, self.lanes // 2, self.lanes // len(vectors)
        low, high = (
            [lane + side for at in range(end - middle, end, each) for side in (0, self.lanes) for lane in range(at, at + each)]
            for end in (middle, self.lanes)
        )
        for _ in range(half.bit_length()):
            vectors = [self.chosen(vectors[at], vectors[at + half], lanes) for at in range(half) for lanes in (low, high)]
        return list(vectors)

    def chosen(self, left: Any, right: Any, lanes: Iterable[int]) -> Any:
        """Return a vector of some numbers of two vectors, those of the second numbered after those of the first."""
        return self.builder.shuffle_vector(left, right, integers(tuple(lanes)))

    def picked(self, left: Any, right: Any, places: Any) -> Any:
        """Return the numbers of two vectors at some places [lanes], of which the lowest bits count: 16 in single precision.

        It is one instruction of AVX-512; LLVM has none for places that are not known when it compiles.
        """
        name = "llvm.x86.avx512.vpermi2var.ps.512"
        declared = self._declared(name, self.vector, [self.vector, places.type, self.vector])
        return self.builder.call(declared, [left, places, right])

    def widened(self, short: Any, dtype: str) -> Any:
        """Return numbers of a 16-bit type, given as integers, as those that are computed with."""
        stored, wide = (ir.VectorType(one, short.type.count) for one in (SHORT[dtype], self.number))
        return self.builder.fpext(self.builder.bitcast(short, stored), wide)

    def plus(self, left: Any, right: Any) -> Any:
        """Return the sum of numbers or of vectors."""
        return self.builder.fadd(left, right)

    def _declared(self, name: str, result: Any, arguments: list[Any]) -> Any:
        known = self.module.globals.get(name)
        return known or ir.Function(self.module, ir.FunctionType(result, arguments), name)


def _halves(lanes: int, least: int) -> Iterator[int]:
    """Yield half of so many lanes, a quarter, and so on down to the least."""
    while lanes > least:
        lanes //= 2
        yield lanes
