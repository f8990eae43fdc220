"""Contents of reports, for tests to render: of rows of every kind, of none, and with names made to harm."""

from collections.abc import Mapping
from typing import Any

import msgspec

from bench.report.content import Content, content_of
from bench.runs.saved import Run, SavedRow
from tests.helpers.rows import row, saved_run
from tests.helpers.saved import facts

HOSTILE = (
    "</script><script>alert(1)</script>",
    "</style><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "' autofocus onfocus=alert(1) '",
    "]]></svg><svg onload=alert(1)>",
    "[click](javascript:alert(1)) | `x` | **b**",
    "{{ 7 * 7 }}{% raw %}",
)
PROCESSES = list(range(8))
AT = {"process_numbers": PROCESSES, "process_seconds": [1e-3] * 8, "process_dense_seconds": [2e-3] * 8}
AT |= {"process_speedups": [1.9 + number / 50 for number in PROCESSES], "speedup": 2.0, "speedup_low": 1.9, "speedup_high": 2.1}
AT |= {"verdict": "faster", "dense_seconds": 2e-3, "interval_over": "processes", "shape": "64x64", "batch": 8, "weights": 4096}
PARTS = ("training_forward", "input_gradient", "weight_gradient", "optimizer")


def read(**fields: Any) -> SavedRow:
    """A row as it is read back, with names as they are."""
    names = {field: value for field, value in fields.items() if field in ("layer", "update", "data", "protocol", "regime")}
    return msgspec.structs.replace(msgspec.convert(row(**AT | fields | dict.fromkeys(names, "x")), SavedRow), **names)


def rows_of(layer: str = "tiled", data: str = "digits") -> dict[str, SavedRow]:
    """Rows that fill every figure: curves, rivals, a step's parts, a mask update, trainings with learning curves."""
    made: dict[str, SavedRow] = {}

    def add(**fields: Any) -> None:
        made[f"bench/x.py::case[{len(made)}]"] = read(**fields)

    for op in ("forward", "step"):
        for dtype in ("float32", "bfloat16"):
            add(op=op, model="dense", layer="dense", sparsity=0.0, dtype=dtype)
        for sparsity in (0.5, 0.9):
            slow = {"speedup": 0.5, "speedup_low": 0.4, "speedup_high": 0.6, "process_speedups": [0.5] * 8, "verdict": "slower"}
            add(op=op, layer=layer, sparsity=sparsity, tile_bytes=2**14, bound_gflops=2e4, bound_fraction=0.2,
                **(slow if sparsity == 0.5 else {}))  # fmt: skip
        add(op=op, model="narrow", layer="dense", sparsity=0.9)
        add(op=op, model="unpruned", layer="block16", sparsity=0.0)
    for part in PARTS:
        for name, at in ((layer, 0.9), ("dense", 0.0)):
            fifth = {"process_seconds": [2e-4] * 8, "seconds": 2e-4}
            add(op=part, model="sparse" if at else "dense", layer=name, sparsity=at, **fifth)
    add(op="update", layer=layer, update="rigl", sparsity=0.9)
    for model, name, sparsity in (("dense", "dense", 0.0), ("sparse", layer, 0.8), ("narrow", "dense", 0.8)):
        for seed in range(3):
            end = 0.9 if model != "narrow" else 0.7
            curve = [0.2, 0.6, end]
            one = {"process_numbers": [seed], "process_speedups": [2.0 + seed / 10], "process_seconds": [1e-3]}
            one |= {"process_dense_seconds": [2e-3], "epoch_accuracies": curve, "dense_epoch_accuracies": [0.3, 0.9, 0.9]}
            one |= {"epoch_seconds": [0.1, 0.2, 0.3], "dense_epoch_seconds": [0.2] * 3, "test_accuracy": end - seed / 100}
            add(op="train", model=model, layer=name, sparsity=sparsity, seed=seed, data=data, protocol="tuned", epochs=3,
                **one)  # fmt: skip
    return made


def run_of_rows(rows: Mapping[str, SavedRow], **fields: Any) -> Run:
    """A run of these rows on a machine whose facts are told."""
    given = {"machine": "zen-2cores-torch-python-abc123", "hardware": "zen-2cores-abc123", "facts": facts()}
    return saved_run(dict(rows))._replace(**given | {"rows": dict(rows)} | fields)


def content(**fields: Any) -> Content:
    """What a report tells of rows of every kind."""
    return content_of([run_of_rows(rows_of(), **fields)], {})


def hostile(*names: str) -> Content:
    """What a report tells of a run whose layers, branch, machine, files and failures have names made to harm, or these."""
    names = names or HOSTILE
    rows: dict[str, SavedRow] = {}
    for name in names:
        named = rows_of(layer=name, data=names[0])
        rows |= {f"{case} {name}": one for case, one in named.items() if one.seed == 0 and one.op in ("forward", "train")}
    every = " ".join(names)
    told: dict[str, Any] = {"name": f"{every}.json", "branch": every, "machine": every, "hardware": f"{every}-abc"}
    known = facts(cpu__model=every[:150], run={"asked": ["--layer", *names]})
    told |= {"failures": {name: name for name in names}, "facts": {**known, every: every}}
    return content_of([run_of_rows(rows, **told)], {}, [f"skipped {name}" for name in names])
