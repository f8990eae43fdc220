"""The rows of single products and the machine's bounds in, where each kernel stands under the roofline out.

Intensity is executed FLOPs over the bytes that must move at least: weights and structure once, activations once. What caches
hold between calls moves less, and may stand above the slanted roof.
"""

import itertools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from bench.findings.grouping import Place, layer_named
from bench.grids import DTYPES, stored
from bench.runs.row import Row

ONE_PRODUCT = ("forward", "input_gradient", "weight_gradient")


class Kernel(NamedTuple):
    """A kernel under the roofline: GFLOP/s executed, FLOPs for each byte, and its own measured bound where there is one."""

    case: str
    op: str
    place: Place
    layer: str
    sparsity: float
    gflops: float
    intensity: float
    bound_gflops: float | None


class Roof(NamedTuple):
    """What one device gives at best in one number type: dense GFLOP/s and GB/s of a copy, None where not measured."""

    device: str
    dtype: str
    gflops: float | None
    gb_per_s: float | None
    kernels: list[Kernel]


def roofs(rows: Mapping[str, Row], facts: Mapping[str, Any]) -> list[Roof]:
    """Return the kernels among the rows, by the names of their cases, under the bounds that the machine's facts tell."""
    found: dict[tuple[str, str], list[Kernel]] = {}
    for name, row in rows.items():
        if row["op"] in ONE_PRODUCT and row["gflops"] > 0 and row["dtype"] in DTYPES:
            found.setdefault((row["device"], row["dtype"]), []).append(_kernel(name, layer_named(row)))
    return [
        Roof(device, dtype, _bound(facts, device, "dense_gflops") if dtype == "float32" else None,
             _bound(facts, device, "memory_gb_per_s"), kernels)
        for (device, dtype), kernels in found.items()
    ]  # fmt: skip


def _kernel(name: str, row: Row) -> Kernel:
    sizes = [int(size) for size in row["shape"].split("x")]
    activations = sum(map(sum, itertools.pairwise(sizes))) * row["batch"] * getattr(torch, stored(row["dtype"])).itemsize
    intensity = row["flops_executed"] / (row["bytes_stored"] + activations)
    what = (row["op"], Place.of(row), row["layer"], row["sparsity"])
    return Kernel(name, *what, row["gflops"], intensity, row.get("bound_gflops"))


def _bound(facts: Mapping[str, Any], device: str, name: str) -> float | None:
    """Return a bound that facts of unknown origin tell, if it is a number above 0."""
    value: Any = facts
    for part in ("bounds", device, name):
        value = value.get(part) if isinstance(value, Mapping) else None
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
    return float(value) if is_number else None
