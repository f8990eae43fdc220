"""Rows of older schemas in, rows of the current one out: one function for each step, so that every saved run stays readable.

A step adds what a row of its schema says in other words, or what the suite of its time did in one way alone. What was not
recorded stays out of the row, and reads as not known; no figure is guessed. What a figure means may have changed with the
schema: a row says in `waiting` what became of the time for which another process had its core, and cases that differ in it
are not held against each other.

Schema 1: one process, that of pytest, measured everything; the interval is over its pairs.
Schema 2: fresh processes, and verdicts. All pairs count, as they are.
Schema 3: pairs that another process disturbed are left out, where two others are left; the parts of a step; peak memory.
Schema 4: what a disturbed pair waited is taken off it; it is left out, where six others are left.
Schema 5: skewed masks, bounds of a kernel, GFLOP/s; from some commit on, the gain of dense's layout.
Schema 6: figures of six digits; what others tell is left out, pairs are packed (bench.runs.compact).
Schema 7: disturbed pairs never count; a process that has no others says nothing.
Schema 8: trainings whose sparsity is not the same in every layer.
Schema 9: trainings have learning curves: the accuracy on the validation split after each epoch, and the epoch's seconds.
Schema 10: trainings have the accuracy on the test split after each epoch too, and say in which variant dense took its steps;
their seeds vary the split of training and validation samples, and digits and mnist5k are standardised.
Schema 11: inputs of which a share is zero.
Schema 12: trainings that are through before dense is have gone on until dense's time was over.
"""

import statistics
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

from bench.runs.plain_text import printable
from bench.runs.row import SCHEMA, Row
from sparse_models.errors import InputError

OF_PROCESSES = ("process_speedups", "process_seconds", "process_dense_seconds")


def upgraded(row: Row) -> Row:
    """Return a row of an older schema as one of the current schema; raises InputError, one sentence, for any other.

    The row is of unknown origin: what it lacks or has of another type raises KeyError, TypeError or ValueError.
    """
    schema = row["schema"]
    if not isinstance(schema, int) or not 1 <= schema < SCHEMA:
        raise InputError(
            f"expected rows of schema 1 to {SCHEMA}, got {printable(str(schema), 20)}; a newer version may read them"
        )
    new = dict(row)
    for step in STEPS[schema - 1 :]:
        step(new)
    new["schema"] = SCHEMA
    return new


def fields_upgraded(schema: int) -> set[str]:
    """Return which fields the steps from a schema on look at, beside those that are read of every row."""
    pairs = {"pair_disturbed", "pair_seconds", "pair_dense_seconds", "process_pairs"}
    return {"schema", *(pairs if schema <= 3 else ())}


def _1_to_2(row: Row) -> None:
    """All was measured in one process, and nothing is known of others: its interval is over pairs, and decides nothing."""
    row.update({field: [] for field in OF_PROCESSES}, interval_over="pairs", verdict="undecided")


def _2_to_3(row: Row) -> None:
    """Each process went through all cases that still needed it, so that its place among a case's is its number."""
    row["process_numbers"] = list(range(len(row["process_speedups"])))


def _3_to_4(row: Row) -> None:
    """The first rows of schema 3, like those before, count every pair and leave the medians of the processes to the reader."""
    row["waiting"] = "left out" if "pair_disturbed" in row else "counted"
    if row["process_speedups"]:
        for arm in ("seconds", "dense_seconds"):
            row.setdefault(f"process_{arm}", _medians(row[f"pair_{arm}"], row["process_pairs"]))


def _medians(times: list[float], pairs: list[int]) -> list[float]:
    """Return the median of each process, of which the first took the first so many of the times."""
    if sum(pairs) != len(times):
        raise InputError("not one process for each pair")
    left = iter(times)
    return [statistics.median(islice(left, count)) for count in pairs]


def _4_to_5(row: Row) -> None:
    """No mask was skewed."""
    row["skew"] = 0.0


def _5_to_6(_: Row) -> None:
    """Nothing that is read: the GFLOP/s of trainings, by the seconds of an epoch and the FLOPs of all, are worked out anew."""


def _6_to_7(row: Row) -> None:
    """Where fewer than six pairs of a process were undisturbed, all of them counted."""
    row.setdefault("waiting", "taken off")


def _7_to_8(row: Row) -> None:
    """All layers of a training were of one sparsity."""
    row["distribution"] = "uniform" if row["op"] == "train" else "-"


def _8_to_9(_: Row) -> None:
    """Learning curves were not recorded, and are not known."""


def _9_to_10(row: Row) -> None:
    """Dense always took its steps eagerly; how accurate the test split found each epoch was not recorded."""
    if row["op"] == "train":
        row["dense_variant"] = "eager"


def _10_to_11(row: Row) -> None:
    """No input was zero, but by chance."""
    row["zeros"] = 0.0


def _11_to_12(_: Row) -> None:
    """No training went on."""


STEPS: tuple[Callable[[Row], None], ...] = (
    _1_to_2,
    _2_to_3,
    _3_to_4,
    _4_to_5,
    _5_to_6,
    _6_to_7,
    _7_to_8,
    _8_to_9,
    _9_to_10,
    _10_to_11,
    _11_to_12,
)


def facts_of(machine_info: Mapping[str, Any]) -> Row:
    """Return the facts of a machine, as `bench.machine.facts` tells them, from what pytest-benchmark told of it.

    That is all that is known of where rows of schemas 1 and 2 were measured. A virtual processor's name may say little:
    family, model and stepping tell those of one name apart.
    """
    cpu = machine_info.get("cpu") or {}
    numbers = ".".join(str(cpu.get(number)) for number in ("family", "model", "stepping"))
    return {
        "cpu": {
            "name": f"{cpu.get('brand_raw')} {numbers}",
            "architecture": machine_info.get("machine"),
            "logical_cores": cpu.get("count"),
        },
        "torch": {fact: (machine_info.get("torch") or {}).get(fact) for fact in ("version", "cpu_capability")},
        "os": {"name": machine_info.get("system")},
        "versions": {"python": machine_info.get("python_version")},
    }
