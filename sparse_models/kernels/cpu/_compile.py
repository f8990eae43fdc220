"""LLVM's text in, the address of a compiled function out; object code is kept between runs.

Code is kept by the text that it was compiled from. Beside it is kept of which text a kernel is, by all that the kernel is made
from, so that one whose code is kept is not written anew.
"""

import hashlib
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

import llvmlite
from llvmlite import binding

from sparse_models.errors import InputError
from sparse_models.kernels.cpu._openmp import addresses, barrier_address
from sparse_models.kernels.kept_code import cache_folder, read_whole, sources, write_whole

Kernel = Callable[..., int]
KERNELS: list[Any] = []  # every kernel, so that tests can have all of them compiled anew
PACKAGE = __name__.partition(".")[0]
SOURCES = sources()  # as this process has loaded them; with None no kernel is known without its text


class Code(NamedTuple):
    """What a kernel was compiled to: a hash of its text, by which its object code is kept, its function's name, its phases."""

    digest: str
    name: str
    phases: int


def kernel(build: Kernel) -> Kernel:
    """Return `build`, which compiles a kernel and returns its address, called once for each set of arguments.

    What it writes may depend on them, on this package's sources, on `machine()`, and on whether there is a barrier: by these it
    is known the next time. For other arguments than plain ones and functions of this package it is written anew.
    """

    @cache
    def address(*arguments: Any, **named: Any) -> int:
        told = _told((build, arguments, *named.items()))
        if SOURCES is None or told is None:
            return build(*arguments, **named)
        made_from = f"{llvmlite.__version__} {machine()} {barrier_address() > 0} {SOURCES} {told}"
        note = cache_folder() / f"{hashlib.sha256(made_from.encode()).hexdigest()}.kernel"
        if (kept := read_whole(note)) is not None:
            digest, name, phases = kept.decode().split()
            code = Code(digest, name, int(phases))
            if (known := read_whole(_file(code.digest))) is not None:
                return _loaded(code, binding.parse_assembly(""), known)
        found = build(*arguments, **named)
        if sources() == SOURCES:  # or what was loaded later is of others
            write_whole(note, " ".join(map(str, _MADE[found])).encode())
        return found

    KERNELS.append(address)
    return address


def _told(value: Any) -> str | None:
    """Return a value as text that tells it from all others; None for what has none."""
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    if isinstance(value, tuple):  # its own name with it: forms of one length are not alike
        parts = [_told(type(value)), *map(_told, value)]
        return None if None in parts else f"({', '.join(map(str, parts))})"
    if not isinstance(value, FunctionType | type):
        return None
    is_ours = value.__module__.partition(".")[0] in (PACKAGE, "builtins") and "<" not in value.__qualname__
    return f"{value.__module__}.{value.__qualname__}" if is_ours else None


class Machine(NamedTuple):
    """What kernels are compiled for: a processor's name and features, as LLVM has them, and the bytes of its widest vectors."""

    name: str
    features: str
    vector_bytes: int


LIMIT = "SPARSE_MODELS_VECTOR_BYTES"
WIDER = {16: ("avx", "fma", "f16c", "vaes", "vpclmulqdq", "xop"), 32: ("avx512", "avx10", "evex512")}  # how features begin


@cache
def machine() -> Machine:
    """Return this very machine; or, with SPARSE_MODELS_VECTOR_BYTES, what it were if its vectors had no more bytes."""
    features = binding.get_host_cpu_features()
    widest = 64 if features.get("avx512f") else 32 if features.get("avx2") else 16
    text = os.environ.get(LIMIT, "") or str(widest)
    if text not in ("16", "32", "64"):
        raise InputError(f"{LIMIT}: expected 16, 32 or 64, got {text!r}; unset it for the widest vectors that there are")
    limit = min(int(text), widest)
    if limit < widest:
        lacking = tuple(name for size, names in WIDER.items() if size >= limit for name in names)
        features.update({name: False for name in features if name.startswith(lacking)})
    return Machine(binding.get_host_cpu_name(), features.flatten(), limit)


def vector_bytes() -> int:
    """Return the bytes of the widest vectors of numbers."""
    return machine().vector_bytes


def has(feature: str) -> bool:
    """Tell whether kernels may use a feature of processors, by LLVM's name."""
    return f"+{feature}" in machine().features.split(",")


def short_on_cpu() -> tuple[str, ...]:
    """Return the number types of 16 bit that this processor can turn into float32: bfloat16 is its upper half."""
    return ("bfloat16", "float16") if has("f16c") or platform.machine() in ("arm64", "aarch64") else ("bfloat16",)


def _target() -> binding.TargetMachine:
    """Return a description of the machine; an engine takes its own over."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    name, features, _ = machine()
    return binding.Target.from_default_triple().create_target_machine(cpu=name, features=features, opt=3, jit=True)


_ENGINES: list[binding.ExecutionEngine] = []  # which own the compiled code
_MADE: dict[int, Code] = {}  # by its address


def phases_of(function: int) -> int:
    """Return how many phases a kernel at an address has, each with tickets of its own; 0 for what is no kernel."""
    return _MADE[function].phases if function in _MADE else 0


def compiled(text: str, name: str, phases: int) -> int:
    """Return the address of function `name` of a module of LLVM's text, of so many phases, compiled for this very machine."""
    code = Code(hashlib.sha256(f"{llvmlite.__version__} {machine()} {LEFT_OUT} {text}".encode()).hexdigest(), name, phases)
    known = read_whole(_file(code.digest))
    if known is not None:
        return _loaded(code, binding.parse_assembly(""), known)
    # What is written is in vectors and registers, unrolled as far as it should be: LLVM's passes over it would take as long as
    # all else of compiling, and gain nothing (docs/cpu_kernels.md). What chooses instructions and registers does run.
    return _loaded(code, binding.parse_assembly(text), None)


# Of what a target does by itself only this is left out: to look for cheaper addresses in loops took 44 % of compiling, and
# gained nothing where an instruction adds two numbers to an address and scales one of them (docs/cpu_kernels.md).
LEFT_OUT = "-disable-lsr" if platform.machine() in ("x86_64", "AMD64") else ""


@contextmanager
def _left_out() -> Iterator[None]:
    """Have LLVM leave that out for as long; its options are all of this process's, where others may compile by it."""
    if not LEFT_OUT:
        yield
        return
    binding.set_option("", f"{LEFT_OUT}=1")
    try:
        yield
    finally:
        binding.set_option("", f"{LEFT_OUT}=0")


def _file(digest: str) -> Path:
    return cache_folder() / f"{digest}.o"


def _loaded(code: Code, module: binding.ModuleRef, known: bytes | None) -> int:
    """Return the address of a function, of object code that is `known`, or that is made of a module now and kept."""
    for called, at in addresses().items():
        binding.add_symbol(called, at)
    engine = binding.create_mcjit_compiler(module, _target())
    if known is None:
        engine.set_object_cache(lambda _, made: write_whole(_file(code.digest), made))
        with _left_out():
            engine.finalize_object()
    else:
        engine.add_object_file(binding.ObjectFileRef.from_data(known))
        engine.finalize_object()
    _ENGINES.append(engine)
    address = int(engine.get_function_address(code.name))
    _MADE[address] = code
    return address
