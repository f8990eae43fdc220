"""Instructions of AVX-512 that LLVM would not find by itself, beside those that all kernels are made of."""

from typing import Any

from llvmlite import ir

from sparse_models.kernels.cpu._arithmetic import INTEGER
from sparse_models.kernels.cpu._emit import Emitter


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

    def dot(self, left: Any, right: Any, plus: Any) -> Any:
        """Return a vector of sums plus the products of two vectors of bfloat16, neighbours added up: one of AVX-512."""
        name = "llvm.x86.avx512bf16.dpbf16ps.512"
        declared = self._declared(name, self.vector, [self.vector, left.type, right.type])
        return self.builder.call(declared, [plus, left, right])

    def ask_for(self, address: Any) -> None:
        """Have the cache line of an address, which need not be anyone's, brought into the caches."""
        integer = ir.IntType(32)
        name, kinds = "llvm.prefetch.p0", [ir.PointerType(), *[integer] * 3]
        what = [ir.Constant(integer, number) for number in (0, 3, 1)]  # to be read, in all caches, data
        self.builder.call(self._declared(name, ir.VoidType(), kinds), [self._pointer(address), *what])
