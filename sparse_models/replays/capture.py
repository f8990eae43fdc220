"""What is called inside in, a CUDA graph of it out; a capture that fails leaves the process as it was."""

import contextlib
import gc
from collections.abc import Iterator
from typing import Any

import torch

from sparse_models.errors import InputError


@contextlib.contextmanager
def capturing(graph: torch.cuda.CUDAGraph, pool: Any = None) -> Iterator[None]:
    """Capture what is called inside, on the current stream, which must not be the default one, in a pool or memory of its own.

    Raises InputError where that cannot be, and OutOfMemoryError as it is: what is too large says nothing of what is smaller.
    """
    memory: Any = torch.cuda.graph_pool_handle() if pool is None else pool
    collects = gc.isenabled()
    torch.cuda.synchronize()
    gc.disable()  # it might let go of another graph meanwhile, which is not permitted
    try:
        graph.capture_begin(pool=memory)
        try:
            yield
        except BaseException as error:  # Ctrl-C among them, after which what is measured is still saved
            with contextlib.suppress(RuntimeError, UserWarning):  # it failed once more, or there is nothing in it
                graph.capture_end()
            _mend(memory)
            if isinstance(error, torch.OutOfMemoryError) or not isinstance(error, Exception):
                raise
            raise _refused(error) from None
        try:
            graph.capture_end()
        except RuntimeError as error:
            _mend(memory)
            raise _refused(error) from None
    finally:
        if collects:
            gc.enable()


def _mend(pool: Any) -> None:
    """Have allocator and generators go on as if there had been no capture: where one fails, PyTorch ends it for neither."""
    with contextlib.suppress(Exception):  # a process that cannot be mended goes on as well as it can
        torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), pool)  # noqa: SLF001  # PyTorch has no public name for it
        torch._C._cuda_releasePool(torch.cuda.current_device(), pool)  # noqa: SLF001
    with contextlib.suppress(Exception):
        number = torch.zeros(1, device="cuda")
        torch.cuda.synchronize()
        with torch.cuda.stream(torch.cuda.Stream()):
            after = torch.cuda.CUDAGraph()
            after.capture_begin()
            number.add_(1)
            after.capture_end()  # by which the generators learn that nothing is captured any more
    with contextlib.suppress(RuntimeError):
        torch.cuda.synchronize()


def _refused(error: Exception) -> InputError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return InputError(
        f"expected a work that a CUDA graph can hold, got one that cannot ({reason}); launch its kernels one by one"
    )
