"""How near a layer's kernel comes to what bounds it on this machine."""

import torch

from bench.cases import Case, is_gpu
from bench.grids import COLD_REPLAY
from bench.machine.bounds import memory_gb_per_s, read_gb_per_s
from bench.runs.row import Facts
from bench.works.once_per_run import once_per_run
from sparse_models.costs import PRODUCTS
from sparse_models.kernels import roofline
from sparse_models.kernels.cuda.shared_rate import shared_gflops
from sparse_models.layers import SparseLinear


def moved(layer: SparseLinear, case: Case, batch: int) -> Facts:
    """Return the bytes that a forward pass with cold weights moves, and the GB/s that memory gives here, measured now.

    With few samples that is what bounds it: each weight is read from memory once, and used a few times.
    """
    if (case.op, case.regime) != ("forward", COLD_REPLAY):
        return {}
    activations = batch * (layer.in_features + layer.out_features) * layer.values.element_size()
    return {"bytes_moved": layer.weight_bytes + activations, "bound_gb_per_s": _most_gb_per_s(case.device)}


@once_per_run
def _most_gb_per_s(device: str) -> float:
    return max(memory_gb_per_s(device), read_gb_per_s(device))


def bounds(layer: SparseLinear, op: str, batch: int, threads: int) -> Facts:
    """Return what bounds the one product that an operation consists of, measured now; nothing where it is not known."""
    products = PRODUCTS[op]
    tile_bytes = layer.tile_bytes(products[0], batch) if len(products) == 1 else None
    if tile_bytes is None:
        return {}
    device, dtype = str(layer.values.device), str(layer.values.dtype).removeprefix("torch.")
    bound = _shared_gflops(device, dtype) if is_gpu(device) else _bound_gflops(tile_bytes, dtype, threads)
    return {"tile_bytes": tile_bytes, "bound_gflops": bound}


@once_per_run
def _shared_gflops(device: str, dtype: str) -> float:
    return shared_gflops(device, getattr(torch, dtype).itemsize)


@once_per_run
def _bound_gflops(tile_bytes: int, dtype: str, threads: int) -> float:  # noqa: ARG001  # a key: torch is set to them
    return roofline.bound(tile_bytes, dtype) / 1e9
