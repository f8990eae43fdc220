"""Rows with every field that tables read, for tests to change what they are about."""

import statistics
from collections.abc import Sequence
from typing import Any

import msgspec

from bench.runs.saved import Run, SavedRow, joined_over_seeds
from bench.tables.text import Screen

WIDE = Screen(1_000)  # on which no table is split and no line broken


def row(**fields: Any) -> dict[str, Any]:
    """A row with some fields changed."""
    base: dict[str, Any] = {
        "schema": 5, "op": "forward", "model": "sparse", "layer": "csr", "update": "static", "shape": "8x8", "batch": 4,
        "sparsity": 0.5, "device": "cpu", "dtype": "float32", "threads": 2, "regime": "warm", "data": "-", "protocol": "-",
        "seed": 0, "skew": 0.0, "distribution": "-", "asked_epochs": 0, "asked_interval": 0, "zeros": 0.0,
        "gflops": 4e3, "seconds": 1e-3, "dense_seconds": 2e-3, "speedup": 1.0,
        "speedup_low": 0.9, "speedup_high": 1.1, "verdict": "undecided",
        "process_speedups": [2.0], "process_numbers": [0], "process_pairs": [6], "realised_fraction": 0.5,
        "pair_seconds": [1.0] * 6, "pair_dense_seconds": [2.0] * 6, "bytes_stored": 300, "dense_bytes_stored": 1200,
        "parameters": 1234, "nnz": 321, "effective_sparsity": 0.8, "learning_rate": 1e-3, "training_seconds": 0.5, "epochs": 3,
        "final_loss": 0.25, "test_accuracy": 0.75, "dense_final_loss": 0.125, "dense_test_accuracy": 0.875,
        "flops_counted": 2e9, "flops_executed": 4e9, "dense_flops_counted": 1e10, "dense_flops_executed": 9e9,
    }  # fmt: skip
    return base | fields


def over_seeds(accuracies: list[float], speedups: list[float], **fields: Any) -> list[dict[str, Any]]:
    """The rows of an arm trained beside a dense of accuracy 0.9, one for each seed."""
    base = {"op": "train", "data": "digits", "protocol": "tuned", "sparsity": 0.8, "dense_test_accuracy": 0.9} | fields
    return [
        row(**base, seed=seed, test_accuracy=accuracy, process_speedups=[speedup], speedup=speedup)
        for seed, (accuracy, speedup) in enumerate(zip(accuracies, speedups, strict=True))
    ]


def levels(speedups: list[float], width: float = 0.0) -> list[dict[str, Any]]:
    at = [0.5, 0.8, 0.9, 0.95, 0.99]
    return [
        row(sparsity=s, speedup=v, speedup_low=v * (1 - width), speedup_high=v * (1 + width))
        for s, v in zip(at, speedups, strict=True)
    ]


def saved_row(**fields: Any) -> SavedRow:
    """A row as it is read back of a saved run, with some fields changed; its speed-up is that of its processes."""
    speedups = fields.pop("speedups", [2.0 + number / 100 for number in range(8)])
    numbers = list(range(len(speedups)))
    base = row(
        process_numbers=numbers, process_speedups=speedups, process_seconds=[1e-3] * len(numbers), interval_over="processes",
        process_dense_seconds=[value * 1e-3 for value in speedups], dense_seconds=2e-3, verdict="faster",
        speedup=statistics.median(speedups), speedup_low=min(speedups), speedup_high=max(speedups),
    )  # fmt: skip
    return msgspec.convert(base | fields, SavedRow, strict=True)


def saved_run(rows: dict[str, SavedRow], **fields: Any) -> Run:
    """A run of these rows, with some fields changed."""
    base: dict[str, Any] = {
        "name": "run",
        "time": "2026-01-01T00:00:00",
        "commit": "c0ffee",
        "is_dirty": False,
        "machine": "m",
        "hardware": "h",
    }
    return Run(**{**base, "dense_gflops": {"cpu": 100.0}, "cases": joined_over_seeds(rows)} | fields)


def learnt(curves: Sequence[tuple[Sequence[float], Sequence[float]]], **fields: Any) -> list[dict[str, Any]]:
    """The rows of an arm, one a seed, each with its accuracies and seconds, beside a dense of 0.8 and 0.9 in two seconds."""
    base = {"op": "train", "data": "digits", "protocol": "tuned", "sparsity": 0.8, "update": "static", "layer": "tiled"}
    base |= {"dense_epoch_accuracies": [0.8, 0.9], "dense_epoch_seconds": [1.0, 1.0]}
    return [
        row(**base | fields, seed=seed, epoch_accuracies=list(accuracies), epoch_seconds=list(seconds))
        for seed, (accuracies, seconds) in enumerate(curves)
    ]
