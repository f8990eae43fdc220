"""Instructions of AVX-512 and AVX2 that LLVM would not find by itself, beside those that all kernels are made of."""

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from sparse_models.kernels.cpu._arithmetic import BFLOAT, INTEGER
from sparse_models.kernels.cpu._emit import CACHE_LINE, Emitter


class Spreading(Emitter):
    """A function in the making whose vectors are put together from bits and the values of those that are set."""

    def ones(self, word: Any) -> Any:
        """Return how many bits of an integer are set."""
        return self.builder.call(self._declared("llvm.ctpop.i64", INTEGER, [INTEGER]), [word])

    def spread(self, vector: Any, bits: Any) -> Any:
        """Return a vector's first numbers where an integer's bits are set, in their order, and zeros elsewhere.

        It is one instruction of AVX-512, of VBMI2 for 16 bit. The vector is to be in a register: straight from memory the
        instruction takes longer.
        """
        kind, lanes = vector.type, vector.type.count
        mask = self.builder.bitcast(bits, ir.VectorType(ir.IntType(1), lanes))
        name = f"llvm.x86.avx512.mask.expand.v{lanes}{'i16' if isinstance(kind.element, ir.IntType) else 'f32'}"
        vector = self.builder.asm(ir.FunctionType(kind, [kind]), "", "=v,0", [vector], side_effect=False)
        return self.builder.call(self._declared(name, kind, [kind, kind, mask.type]), [vector, ir.Constant(kind, None), mask])

    def spread_by_table(self, vector: Any, bits: Any) -> Any:
        """Return a vector's first numbers where the bits of a byte are set, in their order, and zeros elsewhere.

        AVX2 has no instruction for it: eight numbers are permuted to the places that a table has for each byte.
        """
        builder, lanes = self.builder, 8
        entry = self.add(builder.ptrtoint(self._table(), INTEGER), self.times(builder.zext(bits, INTEGER), lanes))
        codes = builder.load(self._pointer(entry), typ=ir.VectorType(ir.IntType(8), lanes))  # from no memory that is watched
        codes.align = lanes
        places = builder.sext(codes, ir.VectorType(ir.IntType(32), lanes))
        permute = self._declared("llvm.x86.avx2.permps", vector.type, [vector.type, places.type])
        nothing = builder.icmp_signed("<", places, ir.Constant(places.type, None))
        return builder.select(nothing, ir.Constant(vector.type, None), builder.call(permute, [vector, places]))

    def _table(self) -> Any:
        """Return, for each byte and bit of it that is set, how many below it are: which number goes there; elsewhere -1."""
        name = "places"
        if name not in self.module.globals:
            codes = [(byte & (1 << bit) - 1).bit_count() if byte >> bit & 1 else -1 for byte in range(256) for bit in range(8)]
            table = ir.GlobalVariable(self.module, ir.ArrayType(ir.IntType(8), len(codes)), name)
            table.initializer, table.global_constant = ir.Constant(table.value_type, codes), True
            table.linkage, table.align = "internal", CACHE_LINE
        return self.module.globals[name]

    def codes(self, address: Any, count: int) -> Any:
        """Return so many bytes as the integers by which numbers are looked up: as wide as these."""
        wide = ir.IntType(8 * CACHE_LINE // count)
        return self.builder.zext(self.load(ir.VectorType(ir.IntType(8), count), address), ir.VectorType(wide, count))

    def looked_up(self, tables: Sequence[Any], codes: Any) -> Any:
        """Return the numbers of four vectors at some places: an instruction of AVX-512 takes them from two."""
        count, kind = codes.type.count, tables[0].type
        name = f"llvm.x86.avx512.vpermi2var.{'hi' if count == CACHE_LINE // 2 else 'ps'}.512"
        declared = self._declared(name, kind, [kind, codes.type, kind])
        low, high = (self.builder.call(declared, [tables[side], codes, tables[side + 1]]) for side in (0, 2))
        is_high = self.builder.icmp_unsigned(">=", codes, ir.Constant(codes.type, [2 * count] * count))
        return self.builder.select(is_high, high, low)

    def dot(self, left: Any, right: Any, plus: Any) -> Any:
        """Return a vector of sums plus the products of two vectors of bfloat16, neighbours added up: one of AVX-512."""
        pairs = ir.VectorType(BFLOAT, left.type.count)
        left, right = (self.builder.bitcast(vector, pairs) for vector in (left, right))
        name = "llvm.x86.avx512bf16.dpbf16ps.512"
        declared = self._declared(name, self.vector, [self.vector, left.type, right.type])
        return self.builder.call(declared, [plus, left, right])
