"""CUDA graphs seen on a CPU: what is captured leaves no trace, is refused where the host would wait, and done at each replay.

What is captured are PyTorch's operations and kernels of our own in CUDA C++; others, which pass by its dispatcher, are not.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves

from sparse_models.kernels.cuda import _compile
from tests.helpers.gpu.simulated_gpu import FREE, no_host_sync, pretend_gpu


class Recording(no_host_sync):
    """What is called inside, in order; it is done, too, as on no card, and undone by `undo`."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Tensor]]] = []
        self.before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}  # memory from outside, and what it held
        self.own: set[int] = set()  # memory that was taken inside

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Do it, and note it with what came of it."""
        given = dict(kwargs or {})
        self.keep(tensors_in((args, given)))
        result = super().__torch_dispatch__(func, types, args, kwargs)
        made = tensors_in(result)
        places = {tensor.untyped_storage().data_ptr() for tensor in tensors_in((args, given))}
        new = [tensor for tensor in made if tensor.untyped_storage().data_ptr() not in places]
        self.own |= {tensor.untyped_storage().data_ptr() for tensor in new} - self.before.keys()
        if not func.is_view and func.overloadpacket not in FREE:
            self.calls.append((func, args, given, new))
        else:
            self.calls.append((None, args, given, made))  # what is held here is given to nothing else
        return result

    def keep(self, tensors: Sequence[Tensor]) -> None:
        """Keep what memory from outside holds, before it is written to."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in self.own:
                self.before.setdefault(storage.data_ptr(), (storage, storage.clone()))

    def note(self, launch: Callable[..., None], given: tuple[Any, ...]) -> None:
        """Note the launch of a kernel of our own."""
        with _disable_current_modes():
            self.keep(tensors_in(given))
        self.calls.append((launch, given, {}, []))

    def undo(self) -> None:
        for storage, held in self.before.values():
            storage.copy_(held)


def tensors_in(what: Any) -> list[Tensor]:
    return [one for one in tree_leaves(what) if isinstance(one, Tensor)]


class SimulatedGraph:
    """A torch.cuda.CUDAGraph."""

    captured: ClassVar[list["SimulatedGraph"]] = []  # whose capture is under way
    begun = replays = 0  # of all of them

    def __init__(self) -> None:
        self.recording = Recording()

    def capture_begin(self, pool: object = None) -> None:
        assert not self.captured
        SimulatedGraph.begun += 1
        self.captured.append(self)
        self.recording.__enter__()  # type: ignore[no-untyped-call]

    def capture_end(self) -> None:
        self.captured.remove(self)
        self.recording.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        self.recording.undo()
        if all(func is None for func, *_ in self.recording.calls):
            warnings.warn("The CUDA Graph is empty, which PyTorch says of a capture that failed early, too", stacklevel=2)

    def replay(self) -> None:
        assert not self.captured
        SimulatedGraph.replays += 1
        with torch.no_grad():
            for func, args, given, new in self.recording.calls:
                if func is None:
                    continue
                places = {tensor.untyped_storage().data_ptr() for tensor in tensors_in((args, given))}
                found = tensors_in(func(*args, **given))
                found = [tensor for tensor in found if tensor.untyped_storage().data_ptr() not in places]
                for into, tensor in zip(new, found, strict=True):
                    into.copy_(tensor)


@pytest.fixture
def simulated_graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[SimulatedGraph]]:
    """Graphs of a GPU that tensors of a CPU pass for being on."""
    pretend_gpu(monkeypatch, captured=False)
    nothing = contextlib.nullcontext
    for count in ("begun", "replays"):
        monkeypatch.setattr(SimulatedGraph, count, 0)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", SimulatedGraph)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: bool(SimulatedGraph.captured))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    launch = _compile.run  # an emulator's, where a test wants our own kernels

    def launched(*given: Any) -> None:
        for graph in SimulatedGraph.captured:
            graph.recording.note(launch, given)
        launch(*given)

    monkeypatch.setattr(_compile, "run", launched)
    stream = SimpleNamespace(wait_stream=lambda _: None, synchronize=lambda: None)
    for name in ("Stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda *_: nothing())
    monkeypatch.setattr(torch.cuda, "device", lambda *_: nothing())
    yield SimulatedGraph
    assert not SimulatedGraph.captured
