"""Rows with every field that tables read, for tests to change what they are about."""

from typing import Any


def row(**fields: Any) -> dict[str, Any]:
    """A row with some fields changed."""
    base = {
        "schema": 5, "op": "forward", "model": "sparse", "layer": "csr", "update": "static", "shape": "8x8", "batch": 4,
        "sparsity": 0.5, "device": "cpu", "dtype": "float32", "threads": 2, "regime": "warm", "data": "-", "protocol": "-",
        "seed": 0, "skew": 0.0, "gflops": 4e3, "seconds": 1e-3, "speedup": 1.0,
        "speedup_low": 0.9, "speedup_high": 1.1, "verdict": "undecided",
        "process_speedups": [2.0], "process_numbers": [0], "process_pairs": [6], "realised_fraction": 0.5,
        "pair_seconds": [1.0] * 6, "pair_dense_seconds": [2.0] * 6, "bytes_stored": 300, "dense_bytes_stored": 1200,
        "parameters": 1234, "nnz": 321, "effective_sparsity": 0.8, "learning_rate": 1e-3, "training_seconds": 0.5, "epochs": 3,
        "final_loss": 0.25, "test_accuracy": 0.75, "dense_final_loss": 0.125, "dense_test_accuracy": 0.875,
        "flops_counted": 2e9, "flops_executed": 4e9, "dense_flops_counted": 1e10, "dense_flops_executed": 9e9,
    }  # fmt: skip
    return base | fields


def levels(speedups: list[float], width: float = 0.0) -> list[dict[str, Any]]:
    at = [0.5, 0.8, 0.9, 0.95, 0.99]
    return [
        row(sparsity=s, speedup=v, speedup_low=v * (1 - width), speedup_high=v * (1 + width))
        for s, v in zip(at, speedups, strict=True)
    ]
