"""Kernels of CUDA C++ run on CPU tensors, one fiber for each CUDA thread: the same source that NVRTC compiles for a card."""

import ctypes
import hashlib
import os
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from sparse_models.kernels.cuda import _compile
from sparse_models.kernels.cuda._compile import Launch, Macros
from sparse_models.kernels.kept_code import cache_folder
from tests.helpers.processes.commands import output

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ on this machine, which the emulator needs")
HEADERS = [Path(__file__).with_name(name) for name in ("cuda_emulator.h", "guarded_memory.h")]
# What a card refuses, or does otherwise than a CPU, ends the call: misaligned loads, shifts by 32 and more, places in no array.
CHECKED = "-fsanitize=alignment,shift-exponent,bounds"
MEANING = {
    2: "threads wait for one another for ever",
    3: "shared memory is written past its end",
    4: "memory is touched that is no tensor's",
    5: "memory beside a tensor is overwritten",
    6: "a load is misaligned, a shift too far, or a place in no array",
}


def run(file: str, macros: Macros, launch: Launch, *arguments: Tensor | float | None) -> None:
    """Do what `sparse_models.kernels.cuda._compile.run` does, here."""
    for argument in arguments:
        assert not isinstance(argument, Tensor) or argument.is_contiguous(), f"{file}: kernels see addresses alone"
    held: list[Any] = [_held(argument) for argument in arguments]
    addresses = (ctypes.c_void_p * len(held))(*[ctypes.cast(ctypes.byref(one), ctypes.c_void_p) for one in held])
    seed = int.from_bytes(os.urandom(3), "little")
    bytes_of = (ctypes.c_long * len(held))(*[one.nbytes if isinstance(one, Tensor) else -1 for one in arguments])
    sizes = *launch.grid, launch.block, launch.shared_bytes
    code = _library(file, macros).emulated(*sizes, addresses, bytes_of, len(held), seed)
    assert code == 0, f"{file}: {MEANING[code]} (seed {seed})"


def _held(argument: Tensor | float | None) -> Any:
    if argument is None or isinstance(argument, Tensor):
        return ctypes.c_void_p(None if argument is None else argument.data_ptr())
    return ctypes.c_int(argument) if isinstance(argument, int) else ctypes.c_float(argument)


@cache
def _library(file: str, macros: Macros) -> Any:
    name = Path(file).stem
    entry = (
        '\nextern "C" int emulated(int gx, int gy, int block, int shared_bytes, void** arguments, const long* bytes, '
        "int count, unsigned seed) { return guarded(arguments, bytes, count, [&] "
        f"{{ return emulate({name}, gx, gy, block, shared_bytes, arguments, seed); }}); }}\n"
    )
    included = "".join(f'#include "{header.name}"\n' for header in HEADERS)
    text = f"{included}{_compile.source_of(file, macros)}{entry}"
    read = (one.read_text(encoding="utf-8") for one in HEADERS)
    digest = hashlib.sha256("".join([CHECKED, text, *read]).encode()).hexdigest()
    library = cache_folder() / f"{digest}.emulated.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        aside = library.with_suffix(f".{os.getpid()}")
        # A fortified longjmp ends the process where it is to go from one stack to another.
        command = ["g++", "-std=c++20", "-O1", "-U_FORTIFY_SOURCE", "-w", "-shared", "-fPIC", CHECKED]
        command += ["-fsanitize-undefined-trap-on-error", f"-I{HEADERS[0].parent}", "-x", "c++", "-", "-o", str(aside)]
        output(command, input=text)
        aside.replace(library)
    return ctypes.CDLL(str(library))
