"""Saved runs as pytest-benchmark writes them, for tests to change what they are about."""

import copy
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bench.runs
from bench.locate import read_runs
from bench.row import SCHEMA
from sparse_models.errors import InputError

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
        "regime": "warm", "skew": 0.0, "speedup": 2.0, "speedup_low": 1.5, "speedup_high": 2.5, "seconds": 1e-3,
        "dense_seconds": 2e-3, "interval_over": "processes", "verdict": "undecided", "process_numbers": [0, 1, 2],
        "process_speedups": [1.5, 2.0, 2.5], "process_seconds": [1e-3] * 3, "process_dense_seconds": [1.5e-3, 2e-3, 2.5e-3],
        "flops_counted": 2e9, "dense_flops_counted": 4e9, "flops_executed": 2e9, "parameters": 72, "nnz": 32,
        "bytes_stored": 300, "gflops": 2.0, "dense_layout": "batch-major", "dense_layout_gain": 1.0,
        "pair_seconds": [1e-3] * 6,
    }  # fmt: skip
    return whole | changed


def training(seed: int, **changed: Any) -> dict[str, Any]:
    """A row of one training with some fields changed."""
    one = {"process_numbers": [seed], "process_speedups": [2.0], "process_seconds": [0.5], "process_dense_seconds": [1.0]}
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
    fields = ("schema", *bench.runs.Row.__struct_fields__)
    return bool(place[2] == "extra_info" and place[3] in fields)


def flipped(content: bytes, seed: int) -> bytes:
    """Return bytes with up to four bits of them changed."""
    chance, changed = random.Random(seed), bytearray(content)
    for _ in range(chance.randint(1, 4)):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def is_sentence(text: str) -> bool:
    """Tell whether a text is one line that a terminal shows and does not obey."""
    return bool(text) and text.isprintable() and len(text) < 1000


def refused(content: bytes) -> str:
    """Return why `parse` refuses a file, which must be one line."""
    with pytest.raises(InputError) as caught:
        bench.runs.parse("run", content)
    assert is_sentence(str(caught.value))
    return str(caught.value)


def why(*asked: str, storage: Path | str = "nowhere") -> str:
    """Return why `read_runs` refuses what is asked for, of which each line must be one that can be shown."""
    with pytest.raises(InputError) as caught:
        read_runs(asked, str(storage))
    assert all(map(is_sentence, str(caught.value).split("\n")))
    return str(caught.value)


class Logger:
    """What pytest-benchmark logs with."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, text: str, **_: Any) -> None:
        self.lines.append(text)

    warning = info


# Imports once, which takes seconds, and forks a process for each line: it saves one run after another, without a number until
# it is killed. A line of a process's number alone waits for its end.
SAVING = """
import itertools, os, sys
from pathlib import Path
from bench.storage import save_numbered, write_whole
content = Path(sys.argv[1]).read_bytes()
for line in sys.stdin:
    name, _, asked = line.strip().partition(" ")
    if not asked:
        print(os.waitstatus_to_exitcode(os.waitpid(int(name), 0)[1]), flush=True)
    elif pid := os.fork():
        print(pid, flush=True)
    else:
        many, _, folder = asked.partition(" ")
        for number in range(int(many)) if int(many) else itertools.count():
            save_numbered(Path(folder), f"{name}-{number}", content)
            write_whole(Path(folder, "same.json"), content[:-1] + b" " * (number % 7) + b"}")
        os._exit(0)
"""


class Saving:
    """Processes that save what a file holds."""

    def __init__(self, content: Path) -> None:
        command = [sys.executable, "-c", SAVING, str(content)]
        self.parent = subprocess.Popen(
            command, cwd=Path(__file__).parents[1], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, line: str) -> int:
        assert self.parent.stdin is not None
        assert self.parent.stdout is not None
        print(line, file=self.parent.stdin, flush=True)
        return int(self.parent.stdout.readline())

    def start(self, folder: Path, name: str, many: int = 0) -> int:
        """Start a process that saves so many runs into a folder, or until it is killed, and return its number."""
        return self.ask(f"{name} {many} {folder}")

    def end(self, process: int) -> int:
        """Wait for a process and return its exit code."""
        return self.ask(str(process))


def changed(**fields: Any) -> bytes:
    """A file whose first row has some fields changed."""
    return written(saved(rows() | {FORWARD: row(**fields)}))


def doubled(name: str, *cases: dict[str, Any]) -> bytes:
    """A file in which several cases have one name."""
    whole = saved()
    whole["benchmarks"] += [{**whole["benchmarks"][0], "fullname": name, "extra_info": case} for case in cases]
    return written(whole)


CONTENT, FORWARD, MANY = written(saved()), next(iter(rows())), bench.runs.MAX_PROCESSES + 1
REFUSED = {
    "empty": b"", "space": b" \n", "array": b"[]", "null": b"null", "number": b"1", "object": b"{}", "nul": b"\0" * 4096,
    "binary": bytes(range(256)), "bom": b"\xef\xbb\xbf" + CONTENT, "utf16": CONTENT.decode().encode("utf-16"),
    "two": CONTENT + CONTENT, "trailing": CONTENT + b"x", "gzip": b"\x1f\x8b\x08" + CONTENT,
    "utf8": CONTENT.replace(b"forward-csr", b"\xff", 3), "surrogate": CONTENT.replace(b"c0ffee", b"\\ud800", 1),
    "no benchmarks": written(saved({})), "another project": written(saved({"test_x": {}, "test_y": {"threads": 1}})),
    "one row of another project": written(saved(rows() | {"test_x": {"python": "3.11"}})),
    "one name": doubled(FORWARD, row()), "one seed": doubled("t-seed0", training(0), training(0)),
    "one seed by two names": written(saved(rows() | {"t-seed0": training(0), "t-seed00": training(0)})),
    "an arm called as a case": written(saved({"t": row(), "t-seed0": training(0), "t-seed1": training(1)})),
    "a process twice": changed(process_numbers=[0, 1, 1]), "no process": changed(process_numbers=[], process_speedups=[]),
    "fewer numbers": changed(process_numbers=[0, 1]), "fewer seconds": changed(process_seconds=[1e-3]),
    "more speed-ups": changed(process_speedups=[1.0] * 4), "outside": changed(speedup=3.0),
    "upside down": changed(speedup_low=2.1), "sparsity": changed(sparsity=1.5),
    "batch": changed(batch=-1), "large": changed(nnz=2**53),
    "verdict": changed(verdict="fine"),
    "many processes": changed(**{name: [*range(1, MANY + 1)] for name in row() if "process_" in name}),
    "many seeds": written(saved({f"t-seed{seed}": training(seed) for seed in range(MANY)})),
    "many cases": written(saved({str(number): {} for number in range(bench.runs.MAX_CASES + 1)})),
    "long name": written(saved({"x" * 10_000_000: row()})), "long layer": changed(layer="x" * 10_000_000),
    "long verdict": changed(verdict="\x1b" * 10_000_000), "long commit": written(saved(commit_info={"id": "c" * 301})),
    "commit": written(saved(commit_info={"id": "\x1b[2J"})), "time": written(saved(datetime="2026\n")),
    "device": written(saved(machine=facts(bounds={"<b>": {"dense_gflops": 1.0}}))), "machine": written(saved(machine=[])),
    "bounds": written(saved(machine=facts(bounds={"cpu": {"dense_gflops": 0}}))),
}  # fmt: skip


def spoil(folder: Path) -> int:
    """Fill a folder with what is no run under the names of runs; return how many."""
    (folder / "folder.json").mkdir()
    os.mkfifo(folder / "pipe.json")
    for name, target in {"zero": "/dev/zero", "dangling": "nowhere", "loop": "loop.json"}.items():
        (folder / f"{name}.json").symlink_to(target)
    with (folder / "sparse.json").open("wb") as file:
        file.truncate(2**40)
    (folder / "just.json").write_bytes(CONTENT.ljust(bench.runs.MAX_BYTES + 1))
    if os.geteuid() != 0:  # root reads all
        (folder / "closed.json").write_bytes(CONTENT)
        (folder / "closed.json").chmod(0)
    for name, content in (REFUSED | {"\x1b[31m\n": b"", os.fsdecode(b"\xff"): b"[]"}).items():
        (folder / f"{name}.json").write_bytes(content)
    return len(list(folder.iterdir()))
