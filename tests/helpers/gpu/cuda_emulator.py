"""Kernels of CUDA C++ run on CPU tensors, one fiber for each CUDA thread: the same source that NVRTC compiles for a card."""

import ctypes
import hashlib
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from sparse_models.kernels.cuda import _compile
from sparse_models.kernels.cuda._compile import Launch, Macros
from sparse_models.kernels.kept_code import cache_folder

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ on this machine, which the emulator needs")
HEADER = Path(__file__).with_name("cuda_emulator.h")


def run(file: str, macros: Macros, launch: Launch, *arguments: Tensor | float | None) -> None:
    """Do what `sparse_models.kernels.cuda._compile.run` does, here."""
    for argument in arguments:
        assert not isinstance(argument, Tensor) or argument.is_contiguous(), f"{file}: kernels see addresses alone"
    held: list[Any] = [_held(argument) for argument in arguments]
    addresses = (ctypes.c_void_p * len(held))(*[ctypes.cast(ctypes.byref(one), ctypes.c_void_p) for one in held])
    seed = int.from_bytes(os.urandom(3), "little")
    code = _library(file, macros).emulated(*launch.grid, launch.block, launch.shared_bytes, addresses, seed)
    assert code == 0, f"{file}: the emulator ended with {code} (seed {seed})"


def _held(argument: Tensor | float | None) -> Any:
    if argument is None or isinstance(argument, Tensor):
        return ctypes.c_void_p(None if argument is None else argument.data_ptr())
    return ctypes.c_int(argument) if isinstance(argument, int) else ctypes.c_float(argument)


@cache
def _library(file: str, macros: Macros) -> Any:
    name = Path(file).stem
    entry = (
        '\nextern "C" int emulated(int gx, int gy, int block, int shared_bytes, void** arguments, unsigned seed) '
        f"{{ return emulate({name}, gx, gy, block, shared_bytes, arguments, seed); }}\n"
    )
    text = f'#include "{HEADER.name}"\n{_compile.source_of(file, macros)}{entry}'
    digest = hashlib.sha256((text + HEADER.read_text(encoding="utf-8")).encode()).hexdigest()
    library = cache_folder() / f"{digest}.emulated.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        aside = library.with_suffix(f".{os.getpid()}")
        # A fortified longjmp ends the process where it is to go from one stack to another.
        command = ["g++", "-std=c++20", "-O1", "-U_FORTIFY_SOURCE", "-w", "-shared", "-fPIC", f"-I{HEADER.parent}"]
        command += ["-x", "c++", "-", "-o", str(aside)]
        subprocess.run(command, input=text, text=True, check=True)
        aside.replace(library)
    return ctypes.CDLL(str(library))
