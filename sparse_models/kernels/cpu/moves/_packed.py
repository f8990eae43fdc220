"""Numbers of which some are left out: written one after the other, a vector at a time where the processor does so by itself."""

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from sparse_models.kernels.cpu._arithmetic import INTEGER
from sparse_models.kernels.cpu._compile import has
from sparse_models.kernels.cpu._emit import Emitter
from sparse_models.kernels.cpu.moves._keys import places_in


def at_once() -> bool:
    """Tell whether the processor brings some lanes of a vector together by one instruction."""
    return has("avx512vl")


def bits_of(emit: Emitter, mask: Any) -> Any:
    """Return a mask of lanes as the bits of an integer."""
    return emit.builder.zext(emit.builder.bitcast(mask, ir.IntType(emit.lanes)), INTEGER)


def mask_of(emit: Emitter, bits: Any) -> Any:
    """Return the lowest bits of an integer as a mask of lanes."""
    return emit.builder.bitcast(emit.builder.trunc(bits, ir.IntType(emit.lanes)), ir.VectorType(ir.IntType(1), emit.lanes))


def compressed(emit: Emitter, vector: Any, mask: Any) -> Any:
    """Return a vector's numbers under a mask one after the other; with AVX-512 alone."""
    return _moved(emit, "compress", vector, mask)


def expanded(emit: Emitter, vector: Any, mask: Any) -> Any:
    """Return a vector's first numbers in the places of a mask, and 0 elsewhere; with AVX-512 alone."""
    return _moved(emit, "expand", vector, mask)


def _moved(emit: Emitter, how: str, vector: Any, mask: Any) -> Any:
    kind = vector.type
    letter = f"i{kind.element.width}" if isinstance(kind.element, ir.IntType) else f"f{8 * emit.width}"
    name = f"llvm.x86.avx512.mask.{how}.v{emit.lanes}{letter}"
    known = emit.module.globals.get(name) or ir.Function(emit.module, ir.FunctionType(kind, [kind, kind, mask.type]), name)
    return emit.builder.call(known, [vector, ir.Constant(kind, None), mask])


def append(emit: Emitter, bits: Any, count: Any, columns: Sequence[tuple[Any, Any]]) -> Any:
    """Write the lanes of vectors whose bits are set to arrays that hold so many, and return how many they then hold.

    Given are vectors, each with its array's address. Behind the last there must be room for a vector.
    """
    builder = emit.builder
    if at_once():
        for vector, address in columns:
            width = vector.type.element.width // 8 if isinstance(vector.type.element, ir.IntType) else emit.width
            emit.store(compressed(emit, vector, mask_of(emit, bits)), emit.add(address, emit.times(count, width)), align=2)
        return emit.add(count, builder.ctpop(bits))

    def each(lane: Any, at: Any) -> None:
        for vector, address in columns:
            number = builder.extract_element(vector, builder.trunc(lane, ir.IntType(32)))
            width = vector.type.element.width // 8 if isinstance(vector.type.element, ir.IntType) else emit.width
            emit.store(number, emit.add(address, emit.times(at, width)), align=2)

    return places_in(emit, bits, count, each)


def lowest(emit: Emitter, bits: Any, count: Any) -> Any:
    """Return the lowest so many, at least 0, of the bits that are set."""
    builder = emit.builder
    with emit.loop(count, builder.ctpop(bits), 1, [bits]) as excess:
        last = builder.sub(emit.constant(63), builder.ctlz(excess.carried[0], ir.Constant(ir.IntType(1), 1)))
        excess.carried = [builder.xor(excess.carried[0], builder.shl(emit.constant(1), last))]
    return excess.carried[0]
