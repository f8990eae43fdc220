"""How near a layer's kernel comes to what bounds it on this machine, where that was measured undisturbed."""

from collections.abc import Callable

import torch

from bench.cases import Case
from bench.grids import COLD_REPLAY, is_gpu
from bench.machine.bounds import memory_gb_per_s, read_gb_per_s
from bench.runs.row import Facts
from bench.works.once_per_run import once_per_run
from sparse_models.costs import PRODUCTS
from sparse_models.kernels.contention import Usage
from sparse_models.kernels.cpu.bounds import roofline
from sparse_models.kernels.cuda.shared_rate import shared_gflops
from sparse_models.layers import SparseLinear

REPETITIONS, TRIES, SECONDS = 3, 12, 0.02  # wanted undisturbed, made at most, each at least as long


def moved(layer: SparseLinear, case: Case, batch: int) -> Facts:
    """Return the bytes that a forward pass with cold weights moves, and the GB/s that memory gives here, measured now.

    With few samples that is what bounds it: each weight is read from memory once, and used a few times.
    """
    if (case.op, case.regime) != ("forward", COLD_REPLAY):
        return {}
    bound = _most_gb_per_s(case.device)
    if bound is None:
        return {}
    activations = batch * (layer.in_features + layer.out_features) * layer.values.element_size()
    return {"bytes_moved": layer.weight_bytes + activations, "bound_gb_per_s": bound}


@once_per_run
def _most_gb_per_s(device: str) -> float | None:
    return undisturbed(lambda: max(memory_gb_per_s(device), read_gb_per_s(device)))


def bounds(layer: SparseLinear, op: str, batch: int, threads: int) -> Facts:
    """Return what bounds the one product that an operation consists of, measured now; nothing where it is not known."""
    products = PRODUCTS[op]
    tile_bytes = layer.tile_bytes(products[0], batch) if len(products) == 1 else None
    if tile_bytes is None:
        return {}
    device, dtype = str(layer.values.device), str(layer.values.dtype).removeprefix("torch.")
    bound = _shared_gflops(device, dtype) if is_gpu(device) else _bound_gflops(tile_bytes, dtype, threads)
    return {} if bound is None else {"tile_bytes": tile_bytes, "bound_gflops": bound}


@once_per_run
def _shared_gflops(device: str, dtype: str) -> float:
    return shared_gflops(device, getattr(torch, dtype).itemsize)


@once_per_run
def _bound_gflops(tile_bytes: int, dtype: str, threads: int) -> float | None:  # noqa: ARG001  # a key: torch is set to them
    return undisturbed(lambda: roofline.bound(tile_bytes, dtype, SECONDS) / 1e9)


def undisturbed(measure: Callable[[], float]) -> float | None:
    """Return the highest of a few figures measured while no thread of ours waited for a core; None where there was none.

    A bound that was measured while another process had the core is one that code exceeds.
    """
    figures = list[float]()
    for _ in range(TRIES):
        before = Usage.now()
        figure = measure()
        if not before.was_disturbed(Usage.now()):
            figures.append(figure)
        if len(figures) == REPETITIONS:
            break
    return max(figures, default=None)
