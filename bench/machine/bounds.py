"""What the machine can do at best, measured: arithmetic and memory; and how much its caches hold."""

import math
import os
import time
from collections.abc import Callable
from functools import partial

import torch

from bench.machine.facts import cache_of, find, read_text

MEASURE_SECONDS, MIN_REPETITIONS, MAX_BYTES, DEFAULT_CACHE_BYTES = 0.1, 3, 2**28, 2**26
GPU_CALLS = 20  # between two looks at the clock: to wait for a GPU takes longer than what it is asked for here


def dense_gflops(device: str, dtype: str = "float32", threads: int | None = None) -> float:
    """Return the GFLOP/s that torch's dense matrix product reaches here, with `threads` threads where they are given."""
    large = 1024 if device == "cpu" else 4096  # a GPU is not full with 1024
    random = torch.Generator(device).manual_seed(0)  # its own: what is drawn elsewhere must not depend on this
    left, right = (torch.rand(large, large, generator=random, device=device).to(getattr(torch, dtype)) for _ in range(2))
    best = 0.0
    for size in (large // 4, large // 2, large):
        a, b = left[:size, :size].contiguous(), right[:size, :size].contiguous()
        if not best or 2 * size**3 / best < 2 * MEASURE_SECONDS * 1e9:  # a type without instructions of its own is 100 x slower
            best = max(best, 2 * size**3 / _best_seconds(partial(torch.mm, a, b), device, threads) / 1e9)
    return best


def memory_gb_per_s(device: str) -> float:
    """Return the GB/s (1e9 bytes, those read and those written) of a copy between two buffers that no cache holds."""
    size = min(MAX_BYTES, 4 * cache_bytes(device)) if device == "cpu" else MAX_BYTES
    available = int(find(r"MemAvailable:\s*(\d+) kB", read_text("/proc/meminfo")) or 4 * MAX_BYTES // 1024) * 1024
    free = available if device == "cpu" else torch.cuda.mem_get_info(device)[0]
    # Ones: untouched pages of zeros are all the same page, which a cache does hold.
    source = torch.ones(max(4, min(size, free // 4)) // 4, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _best_seconds(lambda: target.copy_(source), device) / 1e9


def read_gb_per_s(device: str) -> float:
    """Return the GB/s (1e9 bytes) of reading a buffer that no cache holds: weights are read, and nothing is written back."""
    held = torch.ones(max(MAX_BYTES, 4 * cache_bytes(device)) // 4, device=device)
    return held.nbytes / _best_seconds(held.sum, device) / 1e9


def cache_bytes(device: str) -> int:
    """Return the bytes of all the caches of the last level together; where they are not told, enough for any (64 MiB)."""
    if device != "cpu":
        return int(getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0)) or DEFAULT_CACHE_BYTES
    cache = cache_of("L3") or cache_of("L2")
    if not cache or not cache["bytes"]:
        return DEFAULT_CACHE_BYTES
    return cache["bytes"] * math.ceil((os.cpu_count() or 1) / (cache["shared_by_cores"] or 1))


def _best_seconds(work: Callable[[], object], device: str, threads: int | None = None) -> float:
    before, times = torch.get_num_threads(), list[float]()
    torch.set_num_threads(threads or before)
    try:
        calls = 1 if device == "cpu" else GPU_CALLS
        work()
        while len(times) < MIN_REPETITIONS or calls * sum(times) < MEASURE_SECONDS:
            start = time.perf_counter()
            for _ in range(calls):
                work()
            if device != "cpu":
                torch.cuda.synchronize()
            times.append((time.perf_counter() - start) / calls)
    finally:
        torch.set_num_threads(before)
    return min(times)  # a bound is sought, and noise only ever adds
