"""What the tests of our own kernels share: memory that is poisoned, and memory that is watched."""

import ctypes
from collections.abc import Iterator

import pytest
import torch
from llvmlite import binding
from torch import Tensor

from sparse_models.kernels.cpu import _compile, _emit, _pass, _team, permute, tiled, transpose
from sparse_models.kernels.cpu._compile import KERNELS
from sparse_models.kernels.cpu.blocks import products as blocks
from sparse_models.kernels.cpu.bounds import roofline
from sparse_models.kernels.cpu.few import frozen

# Below, at and above the width of one vector, of a whole tile, and of two.
BATCHES = [1, 2, 3, 15, 16, 17, 63, 64, 100, 127, 128, 129, 255, 257, 300]


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fill memory that is not initialised with NaN, and run two threads, for little work too."""
    before = torch.get_num_threads()
    monkeypatch.setattr(_team, "WORTH_A_TEAM", 0)
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(mode=True)
    yield
    torch.use_deterministic_algorithms(mode=False)
    torch.set_num_threads(before)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4 if actual.dtype == torch.float32 else 1e-10)


def forget_kernels() -> None:
    """Have every kernel compiled anew, or loaded from the cache of compiled code."""
    for kernel in KERNELS:
        kernel.cache_clear()


class Watcher:
    """What a kernel reads and writes, and by which thread, held against the tensors that it may touch."""

    def __init__(self) -> None:
        self.may: list[tuple[int, int]] = []
        self.outside: list[tuple[int, int]] = []
        self.written: dict[int, set[int]] = {}
        self.contested: list[int] = []
        signature = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
        self.function = signature(self.see)
        self.thread = ctypes.CDLL(None).gettid

    def see(self, address: int, size: int, is_write: int) -> None:
        if size > 0 and not any(start <= address and address + size <= end for start, end in self.may):
            self.outside.append((address, size))
        if is_write:
            for place in range(address, address + size, 4):
                writers = self.written.setdefault(place, set())
                writers.add(self.thread())
                if len(writers) > 1:
                    self.contested.append(place)


def _swiftly_compiled() -> binding.TargetMachine:
    """Return this machine, for code that is not optimised: with a call at each access, that would take three times as long."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    name, features, _ = _compile.machine()
    return binding.Target.from_default_triple().create_target_machine(cpu=name, features=features, opt=0, jit=True)


@pytest.fixture
def watcher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watcher]:
    """Kernels built anew, so that they tell a Watcher of every access; `run` tells it which tensors they are given."""
    watcher = Watcher()
    monkeypatch.setattr(_emit, "WATCH", "watched")
    monkeypatch.setattr(_compile, "_target", _swiftly_compiled)
    binding.add_symbol("watched", ctypes.cast(watcher.function, ctypes.c_void_p).value)

    def run(function: int, arguments: list[Tensor | int], team: int) -> None:
        tensors = [argument for argument in arguments if isinstance(argument, Tensor)]
        watcher.may = [(one.data_ptr(), one.data_ptr() + one.numel() * one.element_size()) for one in tensors]
        watcher.written = {}  # what is freed after a run may be given to the next
        _team.run(function, arguments, team)

    for module in (blocks, frozen, tiled, _pass, permute, roofline, transpose):
        monkeypatch.setattr(module, "run", run)
    forget_kernels()
    yield watcher
    forget_kernels()
