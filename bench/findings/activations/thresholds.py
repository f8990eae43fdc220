"""The rows of trained MLPs whose activations have a threshold in, what it saves and what it costs in accuracy out."""

from collections.abc import Sequence
from typing import NamedTuple

from bench.findings.grouping import Place, Told, by_fields
from bench.runs.row import Row

# What a run must tell of such a case, and a damaged file may not.
TOLD = ("hidden_zeros", "seeds", "test_accuracy", "test_samples", "dense_test_accuracy")


class Thresholded(NamedTuple):
    """One arm at one share of small activations set to 0; accuracies are means over the seeds."""

    layer: str
    sparsity: float
    share: float
    hidden_zeros: list[float]  # of each hidden layer, the share of zeros on the test samples
    accuracy: float
    speedup: Told
    seconds: float


class Thresholds(NamedTuple):
    """Of one data set and network, each arm at each share, and dense's own accuracy."""

    data: str
    place: Place  # that of no threshold
    seeds: int
    test_samples: int
    dense_accuracy: float
    arms: list[Thresholded]


def thresholds(rows: Sequence[Row]) -> list[Thresholds]:
    """Return what the rows of the operation `threshold` tell, by data set and network."""
    found = []
    fields = [field for field in Place._fields if field != "zeros"]
    for _, group in by_fields([row for row in rows if row.keys() >= set(TOLD)], "data", *fields):
        first = group[0]
        arms = [
            Thresholded(
                *(row["layer"], row["sparsity"], row["zeros"], row["hidden_zeros"], row["test_accuracy"]),
                *(Told.of(row), row["seconds"]),
            )
            for row in group
        ]
        what = (first["seeds"], first["test_samples"], first["dense_test_accuracy"], arms)
        found.append(Thresholds(first["data"], Place.of(first)._replace(zeros=0.0), *what))
    return found
