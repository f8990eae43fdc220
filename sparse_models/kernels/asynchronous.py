"""Whether the host gets what it asks of a tensor at once, has to wait for it, or may not ask: what chooses between two ways."""

from collections.abc import Sequence

import torch
from torch import Tensor

IN_QUEUES = {"cuda"}  # the types of devices that work is queued on


def is_asynchronous(tensor: Tensor) -> bool:
    """Tell whether work on `tensor` is queued on a device, where each number that the host asks for makes it wait."""
    return tensor.device.type in IN_QUEUES


def is_captured(tensor: Tensor) -> bool:
    """Tell whether work on `tensor` is being captured as a CUDA graph, which may ask for no number at all."""
    return is_asynchronous(tensor) and torch.cuda.is_current_stream_capturing()


def refill(old: Sequence[Tensor], new: Sequence[Tensor]) -> None:
    """Copy each of `new` into the memory of its own among `old`, all of a dtype in one kernel."""
    for dtype in dict.fromkeys(tensor.dtype for tensor in old):
        pairs = [(into, tensor) for into, tensor in zip(old, new, strict=True) if into.dtype == dtype]
        torch._foreach_copy_([into for into, _ in pairs], [tensor for _, tensor in pairs])
