"""CUDA C++ in, kernels that run on torch's tensors out; what NVRTC compiled is kept between runs.

NVRTC and the launches go through NVIDIA's cuda-core, the optional extra [gpu]: no nvcc and no host compiler is needed.
"""

import ctypes
import hashlib
import importlib
import importlib.util
import re
import threading
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sparse_models.errors import InputError
from sparse_models.kernels.kept_code import cache_folder, read_whole, write_whole

PRELUDE = "prelude.cuh"
OLDEST, OVERLAPPING = 8, 9  # compute capabilities from which on there are copies past registers, and overlapped launches
_INCLUDE = re.compile(r'^#include "(\w+\.cuh)"\n', re.MULTILINE)  # ours; a card's compiler is given one text
Macros = tuple[tuple[str, str | int], ...]


class Launch(NamedTuple):
    """How a kernel is launched: blocks, threads in each, bytes of shared memory, and whether it may begin early.

    An overlapped kernel begins while the one before it in the stream is still ending (programmatic dependent launch): it must
    wait (`wait_for_previous` in the prelude) before it reads what that one writes, and before it writes itself.
    """

    grid: tuple[int, int]
    block: int
    shared_bytes: int = 0
    overlapped: bool = False


def source_of(file: str, macros: Macros) -> str:
    """Return the text of a kernel, the prelude and the macros before it, and the headers that it includes in their places."""
    folder = Path(__file__).parent
    own = folder / file
    defined = "".join(f"#define {name} {value}\n" for name, value in macros)
    text = (folder / PRELUDE).read_text(encoding="utf-8") + own.read_text(encoding="utf-8")
    return defined + _INCLUDE.sub(lambda found: (own.parent / found[1]).read_text(encoding="utf-8"), text)


def run(file: str, macros: Macros, launch: Launch, *arguments: Tensor | float | None) -> None:
    """Launch the kernel of a file, whose name is the file's, on the current stream of its tensors' device.

    Tensors are passed by address (None as a null), whole numbers as 32-bit ints, others as floats. Raises InputError where a
    card is too old for these kernels, or a block is to have more shared memory than it has for one.
    """
    device = next(argument.device.index for argument in arguments if isinstance(argument, Tensor))
    with torch.cuda.device(device):
        _set_current(device)
        function, most, overlaps = _function(file, macros, device)
        if launch.shared_bytes > most:
            raise InputError(
                f"expected a card with {launch.shared_bytes} bytes of shared memory for a block, got one with {most}; "
                "use another layer, or a smaller one"
            )
        if launch.overlapped and not overlaps:
            launch = launch._replace(overlapped=False)
        converted = [_converted(argument) for argument in arguments]
        stream = _stream(device, torch.cuda.current_stream().cuda_stream)
        _core().launch(stream, _config(launch), function, *converted)


_THREAD = threading.local()


def _set_current(device: int) -> None:
    """Give a thread that has used no card yet a context; where it has one, torch sets it with the device."""
    known = _THREAD.__dict__.setdefault("devices", set())
    if device not in known:
        _core().Device(device).set_current()
        known.add(device)


def _converted(argument: Tensor | float | None) -> Any:
    if isinstance(argument, Tensor):
        return argument.data_ptr()
    if argument is None:
        return 0
    return ctypes.c_int(argument) if isinstance(argument, int) else ctypes.c_float(argument)


@cache
def _core() -> Any:
    return importlib.import_module("cuda.core")


@cache
def why_absent() -> str | None:
    """Return what is missing for kernels to be compiled, with what to install; None where nothing is."""
    # They are found, not imported: CUDA must not be touched before a process forks.
    try:
        found = importlib.util.find_spec("cuda.core") and importlib.util.find_spec("cuda.bindings")
        is_new = int(version("cuda-core").partition(".")[0]) >= 1
    except (ImportError, ValueError):  # also where something else is called cuda
        found, is_new = None, False
    if found and is_new:
        return None
    return "its kernels there need NVIDIA's cuda-core from 1.0 on, for Python 3.11 or later: pip install 'sparse-models[gpu]'"


@cache
def _stream(device: int, handle: int) -> Any:  # noqa: ARG001  # the default stream has the same handle on all of them
    return _core().Stream.from_handle(handle)


@cache
def _config(launch: Launch) -> Any:
    return _core().LaunchConfig(
        grid=launch.grid,
        block=launch.block,
        shmem_size=launch.shared_bytes,
        programmatic_stream_serialization=launch.overlapped,
    )


@cache
def _function(file: str, macros: Macros, device: int) -> tuple[Any, int, bool]:
    """Return a kernel on a device, the bytes of shared memory that a block can have there, and whether launches may overlap."""
    major, minor = torch.cuda.get_device_capability(device)
    if major < OLDEST:
        raise InputError(
            f"expected a card of compute capability {OLDEST}.0 or later, got {major}.{minor}, which copies nothing to shared "
            "memory by itself; use another layer, as csr"
        )
    code = _core().ObjectCode.from_cubin(compiled(file, macros, f"sm_{major}{minor}"))
    kernel = code.get_kernel(Path(file).stem)
    # Beyond 48 KiB of shared memory a card wants to be asked: for all that it has, as launches of one kernel differ in it. It
    # refuses that to a kernel with shared variables of its own, beside which all would be too much: ours have DYNAMIC_SHARED.
    driver: Any = importlib.import_module("cuda.bindings.driver")
    handle, limit = driver.CUkernel(int(kernel.handle)), driver.CUdevice_attribute
    most = _checked(driver.cuDeviceGetAttribute(limit.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, device))
    dynamic = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    _checked(driver.cuKernelSetAttribute(dynamic, most, handle, driver.CUdevice(device)))
    return kernel, most, major >= OVERLAPPING


def _checked(answer: tuple[Any, ...]) -> Any:
    if int(answer[0]):
        raise RuntimeError(f"expected a card that tells and sets its shared memory, got CUDA's error {int(answer[0])}")
    return answer[1] if len(answer) > 1 else None


def _compiler() -> tuple[Any, ...]:
    """Return NVRTC's version."""
    try:
        found: tuple[Any, ...] = importlib.import_module("cuda.bindings.nvrtc").nvrtcVersion()
    except RuntimeError as error:  # cuda-bindings looks for that of its own CUDA, and PyTorch has brought that of PyTorch's
        own = str(torch.version.cuda).partition(".")[0]
        raise InputError(
            f"expected NVRTC, NVIDIA's compiler, of the CUDA that cuda-bindings {version('cuda-bindings')} is for, got none "
            f"({str(error).partition(chr(10))[0]}); PyTorch brings that of CUDA {own}: pip install 'cuda-bindings=={own}.*'"
        ) from error
    return found


def compiled(file: str, macros: Macros, architecture: str) -> bytes:
    """Return the code of a kernel for an architecture as sm_90, from the cache or by NVRTC; raises InputError without that."""
    text = source_of(file, macros)
    name = hashlib.sha256(f"{_compiler()} {architecture} {text}".encode()).hexdigest()
    path = cache_folder() / f"{name}.cubin"
    known = read_whole(path)
    if known is not None:
        return known
    options = _core().ProgramOptions(std="c++17", arch=architecture, name=file)
    code = bytes(_core().Program(text, "c++", options).compile("cubin").code)
    write_whole(path, code)
    return code
