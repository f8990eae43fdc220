"""A GPU's faults seen on a CPU: what would make the host wait for the device is refused, and what starts kernels is counted."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten

# Their result, or the memory that it takes, is known only once the device has finished.
WAITING = {
    aten._local_scalar_dense,  # item, int, float and bool of a tensor
    aten.is_nonzero,
    aten.equal,
    aten.nonzero,
    aten.nonzero_numpy,
    aten.masked_select,
    aten.unique_dim,
    aten.unique_consecutive,
    aten._unique2,
    aten._unique,
    aten.bincount,
    aten.lift_fresh,  # a tensor made of Python's numbers, which are copied from the host
}
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index}
# They start nothing on a device.
FREE = {
    aten.detach, aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty, aten.new_empty_strided, aten.alias,
    aten.is_set_to, torch.ops.profiler._record_function_enter_new, torch.ops.profiler._record_function_exit,
}  # fmt: skip


class HostSyncError(AssertionError):
    """The host asked the device for something."""


class no_host_sync(TorchDispatchMode):  # noqa: N801  # it is called as a function
    """Raise HostSyncError for each operation inside that a GPU's host would wait at. Copies from the host cannot be seen."""

    def __init__(self) -> None:
        """Start counting operations that launch kernels, in `launches`."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.launches: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Refuse, or count, and do it."""
        given = dict(kwargs or {})
        reason = _waits(func, args, given)
        if reason:
            raise HostSyncError(f"{func}: {reason}")
        result = func(*args, **given)
        if func.overloadpacket not in FREE and not func.is_view:
            self.launches[str(func.overloadpacket)] += 1
        return result


def _waits(func: Any, args: tuple[Any, ...], given: dict[str, Any]) -> str:
    packet = func.overloadpacket
    if packet in WAITING:
        return "the host waits for the device"
    if packet in INDEXING and any(part is not None and part.dtype in (torch.bool, torch.uint8) for part in args[1]):
        return "how many a mask selects is known to the device alone"
    if packet is aten.repeat_interleave and given.get("output_size") is None:
        return "the length of the result is known to the device alone"
    if packet is aten.where and any(isinstance(part, Tensor) and part.dim() == 0 for part in args):
        return "a number of the host is copied to the device; use masked_fill"
    return ""


def pretend_gpu(monkeypatch: pytest.MonkeyPatch, *, captured: bool) -> None:
    """Let tensors pass for those of a GPU, on which a CUDA graph is or is not being captured."""
    monkeypatch.setattr("sparse_models.kernels.asynchronous.IN_QUEUES", {"cpu", "cuda"})
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: captured)
