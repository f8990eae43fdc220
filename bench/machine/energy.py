"""A work in, the joules of a call out, where a GPU's own counter tells them (NVIDIA's NVML, by nvidia-ml-py)."""

import importlib
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

SECONDS = 0.3  # of work; the counter moves some ten times a second
PIECE_SECONDS = 5e-3  # of work between two readings


def joules(work: Callable[[], object], device: str) -> float | None:
    """Return the joules of all the card for a call of `work`, over some tenths of a second; None where nothing tells them.

    From one movement of the counter to another, with only this work between. What an idle card takes is in it.
    """
    read = counter(device)
    if read is None:
        return None
    work()
    torch.cuda.synchronize()
    begin = time.perf_counter()
    work()
    torch.cuda.synchronize()
    piece = max(1, int(PIECE_SECONDS / max(time.perf_counter() - begin, 1e-9)))
    calls, seen = 0, [(0, read())]
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        for _ in range(piece):
            work()
        torch.cuda.synchronize()
        calls += piece
        if (now := read()) != seen[-1][1]:
            seen.append((calls, now))
    if len(seen) < 3:  # the first reading is no movement
        return None
    (first_calls, first), (last_calls, last) = seen[1], seen[-1]
    return (last - first) / 1e3 / (last_calls - first_calls)


@cache
def counter(device: str) -> Callable[[], int] | None:
    """Return what reads the millijoules that a card has taken so far, None where it does not tell."""
    if torch.device(device).type != "cuda":
        return None
    try:
        nvml: Any = importlib.import_module("pynvml")
        nvml.nvmlInit()
        # By the UUID: NVML numbers the cards in an order of its own.
        handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except Exception:  # a missing library, driver or right: no figure is worth a failed run
        return None
    return lambda: int(nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
