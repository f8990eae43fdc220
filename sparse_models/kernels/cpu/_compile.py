"""LLVM's text in, the address of a compiled function out; object code is kept between runs."""

import hashlib
import os
import platform
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite
from llvmlite import binding

from sparse_models.errors import InputError
from sparse_models.kernels.kept_code import cache_folder, read_whole, write_whole

Kernel = Callable[..., int]
KERNELS: list[Any] = []  # every kernel, so that tests can have all of them compiled anew


def kernel(build: Kernel) -> Kernel:
    """Return `build`, which compiles a kernel and returns its address, called once for each set of arguments."""
    KERNELS.append(cache(build))
    return KERNELS[-1]  # type: ignore[no-any-return]


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


def compiled(text: str, name: str) -> int:
    """Return the address of function `name` of a module of LLVM's text, compiled for this very machine."""
    path = cache_folder() / f"{hashlib.sha256(f'{llvmlite.__version__} {machine()} {text}'.encode()).hexdigest()}.o"
    known = read_whole(path)
    module = binding.parse_assembly(text)
    engine = binding.create_mcjit_compiler(module, _target())
    engine.set_object_cache(*_object_cache(path, known))
    if known is None:
        # The loops come unrolled as far as they should be.
        options = binding.create_pipeline_tuning_options(speed_level=3)
        options.loop_unrolling = False
        builder = binding.create_pass_builder(_target(), options)
        builder.getModulePassManager().run(module, builder)
    engine.finalize_object()
    _ENGINES.append(engine)
    return int(engine.get_function_address(name))


def _object_cache(path: Path, known: bytes | None) -> tuple[Callable[..., None], Callable[..., bytes | None]]:
    def made(_: binding.ModuleRef, code: bytes) -> None:
        write_whole(path, code)

    def wanted(_: binding.ModuleRef) -> bytes | None:
        return known

    return made, wanted
