"""Saved runs as pytest-benchmark writes them, for tests to change what they are about."""

import copy
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from bench.cases import Case
from bench.hooks.asked import was_asked
from bench.hooks.state import DESELECTED, SELECTION
from bench.runs.row import SCHEMA
from bench.runs.saved import SavedRow
from bench.selection import Selection
from bench.shapes import Shape
from tests.helpers.in_process import ROOT

STATS = ("min", "max", "mean", "stddev", "rounds", "median", "iqr", "q1", "q3", "ops", "total", "iterations")
DELETE = object()  # as a value: the field is not there


def facts(**changed: Any) -> dict[str, Any]:
    """The facts of a machine with some changed, by their place as cpu__name."""
    cache = {"bytes": 32768, "shared_by_cores": 1}
    told: dict[str, Any] = {
        "cpu": {
            "name": "znver3", "model": "AMD EPYC", "architecture": "x86_64", "logical_cores": 2, "physical_cores": 2,
            "usable_cores": 2, "quota_cores": None, "caches": {"L1d": cache, "L2": None, "L3": cache}, "governor": None,
            "load_average": [0.25, 0.5, 0.75],
        },
        "memory_bytes": 2**34, "huge_pages": "madvise", "os": {"name": "Linux", "release": "6.1"},
        "torch": {
            "version": "2.13.0+cpu", "git": "cf30153c", "cuda": None, "threads": 2, "interop_threads": 2, "blas": "mkl",
            "cpu_capability": "AVX2", "mkl": "2024.2", "onednn": "3.12.0", "openmp": "gomp",
        },
        "versions": {"python": "3.11.7", "numpy": "2.4.6", "numba": None}, "environment": {}, "gpu": None,
        "bounds": {"cpu": {"dense_gflops": 128.0, "memory_gb_per_s": 16.0}},
    }  # fmt: skip
    for place, value in changed.items():
        *outer, last = place.split("__")
        inside = told
        for name in outer:
            inside[name] = dict(inside[name] or {})
            inside = inside[name]
        inside[last] = value
    return told


def row(**changed: Any) -> dict[str, Any]:
    """A row of three processes with some fields changed."""
    whole = {
        "schema": SCHEMA, "op": "forward", "model": "sparse", "layer": "csr", "update": "static", "shape": "8x8", "batch": 4,
        "sparsity": 0.5, "device": "cpu", "dtype": "float32", "threads": 2, "data": "-", "protocol": "-", "seed": 0,
        "regime": "warm", "skew": 0.0, "distribution": "-", "zeros": 0.0,
        "speedup": 2.0, "speedup_low": 1.5, "speedup_high": 2.5, "seconds": 1e-3,
        "dense_seconds": 2e-3, "interval_over": "processes", "verdict": "undecided", "process_numbers": [0, 1, 2],
        "process_speedups": [1.5, 2.0, 2.5], "process_seconds": [1e-3] * 3, "process_dense_seconds": [1.5e-3, 2e-3, 2.5e-3],
        "flops_counted": 2e9, "dense_flops_counted": 4e9, "flops_executed": 2e9, "parameters": 72, "nnz": 32,
        "bytes_stored": 300, "gflops": 2.0, "dense_layout": "batch-major", "dense_layout_gain": 1.0,
        "process_pairs": [2, 2, 2], "pair_seconds": [1e-3] * 6, "pair_dense_seconds": [2e-3] * 6, "pair_waited": [0.0] * 6,
        "pair_dense_waited": [],
    }  # fmt: skip
    return whole | changed


def training(seed: int, **changed: Any) -> dict[str, Any]:
    """A row of one training with some fields changed."""
    one = {"process_numbers": [seed], "process_speedups": [2.0], "process_seconds": [0.5], "process_dense_seconds": [1.0]}
    one |= {"process_pairs": [6]}
    ends = {"epochs": 3, "test_accuracy": 0.75, "final_loss": 0.25, "interval_over": "pairs", "data": "digits"}
    return row(op="train", seed=seed, protocol="seed", **one, **ends) | changed


def rows() -> dict[str, dict[str, Any]]:
    """The rows of a run by the names of their cases: a curve of two sparsities, a dense control, two seeds of one arm."""
    layers = "bench/bench_layer.py::bench_layer"
    arm = "bench/bench_train.py::bench_train[digits-seed-rigl-csr-0.5-cpu-float32-2threads"
    return {
        f"{layers}[forward-csr-8x8b4-0.5-cpu-float32-2threads]": row(),
        f"{layers}[forward-csr-8x8b4-0.9-cpu-float32-2threads]": row(sparsity=0.9, bound_fraction=0.5, peak_bytes=4096),
        f"{layers}[forward-dense-8x8b4-0-cpu-float32-2threads]": row(layer="dense", model="dense", sparsity=0.0),
        f"{arm}-seed0]": training(0, speedup=1.5),
        f"{arm}-seed1]": training(1, speedup=2.5),
    }


def saved(cases: dict[str, dict[str, Any]] | None = None, **changed: Any) -> dict[str, Any]:
    """A saved run of these rows, with some fields of the file changed."""
    cases = rows() if cases is None else cases
    stats = dict.fromkeys(STATS, 1.0) | {"data": [1.0], "outliers": "0;0"}
    benchmarks = [
        {"name": name.rpartition(":")[2], "fullname": name, "group": None, "stats": stats, "params": {}, "extra_info": one}
        for name, one in cases.items()
    ]
    commit = {"id": "c0ffee0123456789", "dirty": False, "branch": "main"}
    whole = {"machine_info": {"cpu": {}}, "commit_info": commit, "benchmarks": benchmarks, "version": "5.1.0"}
    return whole | {"datetime": "2026-01-02T03:04:05+00:00", "machine": facts()} | changed


def written(content: Any) -> bytes:
    """The bytes of a file."""
    return json.dumps(content, separators=(",", ":")).encode()


def places(content: Any, *place: Any) -> Iterator[tuple[Any, ...]]:
    """Yield where in a file something is, from the whole of it to each figure."""
    yield place
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for name, value in inner:
        yield from places(value, *place, name)


def at(content: Any, place: tuple[Any, ...]) -> Any:
    """Return what is at a place."""
    for name in place:
        content = content[name]
    return content


def put(content: Any, place: tuple[Any, ...], value: Any) -> Any:
    """Return the file with another value at a place, or none where it is DELETE."""
    if not place:
        return value
    content = copy.deepcopy(content)
    inside = content
    for name in place[:-1]:
        inside = inside[name]
    if value is DELETE:
        del inside[place[-1]]
    else:
        inside[place[-1]] = value
    return content


def is_read(place: tuple[Any, ...]) -> bool:
    """Tell whether a place, in a file of `saved`, is one that a run is read from and not walked past."""
    name = place[-1] if place else ""
    inside = place[:-1]
    if not place or inside == ():
        return name in ("", "benchmarks", "datetime", "commit_info", "machine")
    if inside == ("commit_info",):
        return name in ("id", "dirty")
    if place[0] == "machine":
        return place[1] == "bounds" and name != "memory_gb_per_s"
    if place[0] != "benchmarks" or len(place) == 2:
        return bool(place[0] == "benchmarks")
    if len(place) == 3:
        return name in ("fullname", "extra_info")
    fields = ("schema", *SavedRow.__struct_fields__)
    return bool(place[2] == "extra_info" and place[3] in fields)


def is_asked_for(asked: Selection, case: Case) -> bool:
    """Tell whether a command line that makes this selection asks for a case of an older run."""
    config: Any = SimpleNamespace(
        stash={SELECTION: asked, DESELECTED: set()}, option=SimpleNamespace(keyword=""), args=["bench"], rootpath=ROOT,
        invocation_params=SimpleNamespace(dir=ROOT),
    )  # fmt: skip
    shape = Shape.parse(case.shape)
    row: Any = SimpleNamespace(**case._asdict() | {"shape": shape.chain, "batch": shape.batch})
    return was_asked(config, f"bench/bench_of_{case.op}.py::bench_{case.op}[{case.id}]", row)
