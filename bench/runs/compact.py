"""A run as pytest-benchmark is about to save it in, the same run in a third of the bytes out, and back.

Still JSON that pytest-benchmark reads. The rows of all cases are one table, `rows`: a list for each field, in the order of
`benchmarks`, or one value where all cases have the same; pandas.DataFrame takes it as it is. What few cases have stays in their
`extra_info`. Numbers have six digits, which is more than any clock has. What each process says, and all pairs, are packed:

    figures = np.frombuffer(base64.b64decode(run["process_figures"]), "<f4").reshape(3, -1)
    logs = np.frombuffer(zlib.decompress(base64.b64decode(run["pairs"])), "<i2").reshape(4, -1) * 2e-4

`figures` are speed-up, seconds and dense's seconds, a column for each process: as many as `processes` says for the first case,
then those of the second. `logs` has a column for each pair, `process_pairs` (of each process, or one number for all) for each
process; where there are more of these than `processes`, the last are of processes whose pairs were all disturbed and that say
nothing. Seconds are those of the case times exp(logs[0]), dense's times exp(logs[1]), right to 1 in 10,000; logs[2] and logs[3]
are the fractions of either that waited, -1 where the kernel does not tell.
"""

import base64
import zlib
from collections import Counter
from itertools import accumulate
from typing import Any

import numpy as np

from bench.cases import Case

Record = dict[str, Any]
FIGURES = ("process_speedups", "process_seconds", "process_dense_seconds")
TIMES, WAITS = ("pair_seconds", "pair_dense_seconds"), ("pair_waited", "pair_dense_waited")
STEP = 2e-4  # of the logarithm of a time, and of a fraction
DIGITS, EXACT_FROM = 6, 1e6  # FLOPs and bytes are counts, and two runs of one case must agree in them
COMMON = 1 / 4  # of the cases: a field that as many have is a column, for a null is shorter than a name
NEEDED = {"schema", "seconds", "dense_seconds", "process_numbers", "process_pairs", *FIGURES, *TIMES, *WAITS}
# What other fields tell, and what of pytest-benchmark's it restores itself or no tool of it reads.
LEFT_OUT = {
    *("schema", "in_features", "out_features", "effective_sparsity", "gflops", "realised_fraction", "interval_over"),
    *("pairs", "undisturbed_pairs", "process_numbers", "process_pairs", *FIGURES, *TIMES, *WAITS),
}
STATISTICS_LEFT_OUT = {"iqr_outliers", "stddev_outliers", "ops", "total"}


def compact(output_json: Record) -> Record:
    """Return the run as it is to be saved; the argument is left as it is."""
    benchmarks = output_json.get("benchmarks", [])
    full = [benchmark["extra_info"] for benchmark in benchmarks]
    if not full or not all(row.keys() >= NEEDED for row in full):  # there are benchmarks of others among ours
        return output_json
    rows = [_row(row) for row in full]
    common = [field for field, count in Counter(field for row in rows for field in row).items() if count >= COMMON * len(rows)]
    table = {field: [row.pop(field, None) for row in rows] for field in common}
    options = [benchmark.get("options") for benchmark in benchmarks]
    return {
        **{key: _rounded(value) for key, value in output_json.items() if key != "benchmarks"},
        "schema": full[0]["schema"],
        "options": options[0],
        "rows": {field: _column(values) for field, values in table.items()},
        "process_figures": _text(np.hstack([[row[field] for field in FIGURES] for row in full]).astype("<f4").tobytes()),
        "pairs": _text(zlib.compress(np.hstack([_logs(row) for row in full]).tobytes(), 9)),
        "benchmarks": [
            {
                **{key: value for key, value in benchmark.items() if key != "options"},
                "extra_info": row,
                "stats": {key: _rounded(one) for key, one in benchmark["stats"].items() if key not in STATISTICS_LEFT_OUT},
            }
            for benchmark, row in zip(benchmarks, rows, strict=True)
        ],
    }


def _column(values: list[Any]) -> Any:
    """Return one value where all are the same; a list is always the values of all cases."""
    is_one = len(values) > 1 and not isinstance(values[0], list) and all(value == values[0] for value in values)
    return values[0] if is_one else values


def _row(row: Record) -> Record:
    """Return what the table says of a row."""
    numbers, pairs = row["process_numbers"], row["process_pairs"]
    kept = {
        key: value if key in Case._fields else _rounded(value)  # a case is what it is
        for key, value in row.items()
        if key not in LEFT_OUT and value is not None
    }
    named = {} if numbers == list(range(len(numbers))) else {"process_numbers": numbers}
    is_one = len(set(pairs)) == 1 and len(pairs) == len(numbers)
    return {**kept, "processes": len(numbers), "process_pairs": pairs[0] if is_one else pairs, **named}


def _logs(row: Record) -> Any:
    times = [np.log(np.array(row[f]) / _rounded(row[f.removeprefix("pair_")])) for f in TIMES]
    waits = [np.array(row[field] or [-1.0] * len(times[0])) for field in WAITS]
    return np.clip(np.rint(np.array([*times, *waits]) / STEP), -(2**15), 2**15 - 1).astype("<i2")


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if abs(value) < EXACT_FROM else value
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list | tuple) else value


def rows_of(table: Record, process_figures: str, others: list[Record]) -> list[Record]:
    """Return the rows of a table, each with those of its fields that few have; raises ValueError for what fits ill."""
    columns = {field: value if isinstance(value, list) else [value] * len(others) for field, value in table.items()}
    each = zip(zip(*columns.values(), strict=True), others, strict=True)
    rows = [
        {field: one for field, one in zip(columns, values, strict=True) if one is not None} | other for values, other in each
    ]
    figures = np.frombuffer(base64.b64decode(process_figures), "<f4").astype(float).reshape(len(FIGURES), -1)
    counts = [row["processes"] for row in rows]
    if not all(type(count) is int and count > 0 for count in counts) or sum(counts) != figures.shape[1]:
        raise ValueError("not one figure for each process")
    ends = [0, *accumulate(counts)]
    for row, start, end in zip(rows, ends, ends[1:], strict=False):
        row.setdefault("process_numbers", list(range(end - start)))
        row["interval_over"] = "processes" if end - start > 1 else "pairs"
        row.update(zip(FIGURES, figures[:, start:end].tolist(), strict=True))
    return rows
