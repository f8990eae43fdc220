"""LLVM's constants, each made once: a kernel has few, thousands of times, and they took a third of the time to write it."""

from functools import cache
from typing import Any

from llvmlite import ir


@cache
def integer(value: int) -> Any:
    """Return an integer of 64 bit."""
    return ir.Constant(ir.IntType(64), value)


@cache
def integers(values: tuple[int, ...]) -> Any:
    """Return a vector of integers of 32 bit."""
    return ir.Constant(ir.VectorType(ir.IntType(32), len(values)), list(values))


@cache
def repeated(kind: Any, lanes: int, value: str) -> Any:
    """Return a vector of one number, given as hexadecimal text: as numbers, -0.0 and 0.0 would be one."""
    return ir.Constant(ir.VectorType(kind, lanes), [float.fromhex(value)] * lanes)
