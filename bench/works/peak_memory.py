"""Work in, the most memory that it holds at once out."""

import contextlib
import gc
import os
from collections.abc import Callable, Iterator
from itertools import accumulate

import torch
from torch._C._autograd import DeviceType
from torch.autograd.profiler import profile  # torch.profiler's own adds an import of 2 s and a parse of every event


def peak_bytes(work: Callable[[], object], device: str, prepare: Callable[[], object] | None = None) -> int | None:
    """Return the most bytes that torch held above what it held before, while `work` ran; None where a device does not tell.

    `work` runs twice, untimed, and the second run is counted: in the first, libraries take the workspaces that they keep, and
    on the CPU only what was allocated under the profiler is known when it is freed, such as the gradients of the step before.
    What the first run leaves behind was held before, and is not counted; nor is what `prepare` makes, called before each.

    Counted are the bytes that torch's allocator was asked for (on CUDA in its blocks of 512 bytes). Not seen is what passes by
    that allocator: the buffers of a BLAS, oneDNN or a sparse library, and numpy's and Python's memory; nor, on the CPU, what
    threads other than the caller's and autograd's allocate.
    """
    kind = torch.device(device).type
    before_it_counts = [work] if prepare is None else [prepare, work, prepare]
    if kind == "cpu":
        with _uncollected():
            for call in before_it_counts:  # under the profiler, too: what they make may be freed by what is counted
                _changes(call)
            return max(accumulate(_changes(work), initial=0))
    if kind == "cuda":
        with _uncollected():
            for call in before_it_counts:
                call()
            torch.cuda.synchronize(device)
            before = torch.cuda.memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)
            work()
            torch.cuda.synchronize(device)
            return torch.cuda.max_memory_allocated(device) - before
    return None


def _changes(work: Callable[[], object]) -> list[int]:
    """Return the bytes of each allocation (positive) and of each release (negative) on the CPU, in the order of time."""
    with _silent(), profile(profile_memory=True) as profiler:
        work()
    results = profiler.kineto_results
    assert results is not None
    events = [event for event in results.events() if event.name() == "[memory]" and event.device_type() == DeviceType.CPU]
    # Each thread's events are in order already, and sorting is stable: the clock need not tell neighbours apart.
    return [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Drop what is written to the process's standard error: the profiler announces itself there from C++, past sys.stderr."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Hold off the garbage collector, which would free the garbage of others in the midst of what is counted."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
