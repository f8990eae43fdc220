"""How many sums a kernel of blocks keeps in registers, and how far it unrolls what it does with them."""

import platform
from collections.abc import Callable
from typing import Any

from sparse_models.kernels.cpu._compile import vector_bytes
from sparse_models.kernels.cpu._emit import Emitter

# Columns of a block, and vectors of a tile, that are no loop: of more, LLVM loads all first, and has no registers for them.
UNROLLED = 4


def registers() -> int:
    """Return how many registers for vectors the processor has."""
    return 32 if vector_bytes() == 64 or platform.machine() in ("aarch64", "arm64") else 16


def most_sums() -> int:
    """Return how many sums are kept in registers: three quarters, the rest is for what is multiplied."""
    return registers() * 3 // 4


def largest_divisor(number: int, most: int) -> int:
    """Return the largest divisor of a number that is at most so many."""
    return max(divisor for divisor in range(1, most + 1) if number % divisor == 0)


def unrolled(emit: Emitter, count: int, most: int, carried: list[Any], add: Callable[[Any, int, list[Any]], None]) -> list[Any]:
    """Emit `add` for each integer below a number, at most so many in a row and more in a loop; return what became of `carried`.

    It is given where a turn of the loop starts, which of its integers it is, so that addresses differ by constants, and the
    list, which it changes.
    """
    # Twice as many still are none: a loop of two turns costs more.
    step, carried = count if count <= 2 * most else largest_divisor(count, most), list(carried)
    if step == count:
        for number in range(count):
            add(emit.constant(0), number, carried)
        return carried
    with emit.loop(emit.constant(0), emit.constant(count), step, carried) as loop:
        for number in range(step):
            add(loop.place, number, loop.carried)
    return loop.carried
