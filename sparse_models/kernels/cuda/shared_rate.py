"""What bounds the products of larger batches on a GPU, measured: a load from shared memory for each multiply-add."""

from typing import Any

import torch
from torch import Tensor

from sparse_models.kernels.cuda import _card, _compile
from sparse_models.kernels.cuda._compile import Launch

THREADS, BLOCKS, PIECES = 512, 2, 2048  # in a block, on a multiprocessor; of 16 bytes in a block's shared memory
LOADS = 16  # of a lane in a round
ROUNDS, TRIALS = 2000, 5


def sums(rounds: int, device: torch.device | str) -> Tensor:
    """Return what the kernel adds up in each thread [threads]: 8 for each load."""
    blocks = BLOCKS * _card.card_of(torch.device(device)).multiprocessors
    result = torch.empty(blocks * THREADS, device=device)
    _compile.run("shared_rate.cu", (), Launch((blocks, 1), THREADS, 16 * PIECES), result, rounds, PIECES)
    return result


def shared_gflops(device: str, number_bytes: int) -> float:
    """Return the GFLOP/s of multiply-adds whose one factor, of so many bytes, each lane loads from shared memory."""
    loads = len(sums(ROUNDS, device)) * ROUNDS * LOADS
    best = 0.0
    for _ in range(TRIALS):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        events: list[Any] = [start, stop]
        events[0].record()
        sums(ROUNDS, device)
        events[1].record()
        torch.cuda.synchronize()
        best = max(best, loads * (16 // number_bytes) * 2 / (events[0].elapsed_time(events[1]) / 1e3) / 1e9)
    return best
