"""The rows of trainings in, how accurate each arm was after each epoch out, and how it ends beside dense.

Accuracy by epoch is that on the validation split; at the end it is that on the test split, which is looked at once.
"""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from bench.findings.grouping import NARROW, UNLEARNABLE, by_fields, by_training, conditions_of, layer_named, shape_of
from bench.findings.time_to_accuracy.seeds import gone_on, seed_of
from bench.findings.trainings import ARM, OverSeeds, speedup_over_seeds, unusual
from bench.grids import UNPRUNED
from bench.runs.row import Row
from bench.statistics.censoring import Median, median_of
from bench.statistics.intervals import Interval
from bench.statistics.verdicts import difference_interval

DENSE = "dense"


class Epoch(NamedTuple):
    """Where an arm stands after an epoch: its accuracy over the seeds, and what it took until then, on average."""

    number: int
    accuracy: OverSeeds
    seconds: float
    flops: float  # counted


class Curve(NamedTuple):
    """The epochs of one arm; `reached` is the first whose mean accuracy is the target's, None where none is.

    `time_ratio` is its time until then over dense's, seed by seed and each by its own target.
    """

    arm: str
    epochs: list[Epoch]
    reached: Epoch | None
    time_ratio: Median


class End(NamedTuple):
    """How one arm ends: its accuracy, what it took, and how it fares beside dense of the same seed."""

    arm: str
    case: str  # the name of its first seed's case
    accuracy: OverSeeds
    seconds: float
    flops: float
    bytes_stored: int
    peak_bytes: int | None  # while it trains
    speedup: Interval
    difference: Interval | None  # of its test accuracy and dense's; None where there is but one seed


class Learning(NamedTuple):
    """All arms on one data set under one protocol: how they end, their curves where they were recorded, and dense's levels."""

    data: str
    shape: str
    protocol: str
    epochs: int
    conditions: str
    seeds: int
    ends: list[End]
    curves: list[Curve]
    test_level: float  # of dense
    target: float | None  # the mean of what arms are to come to on the validation split: bench.findings.time_to_accuracy

    @property
    def is_learnable(self) -> bool:
        """Whether accuracy on samples that were not trained on says anything."""
        return self.data not in UNLEARNABLE


def learning(rows: dict[str, Row]) -> list[Learning]:
    """Return what the trainings among the rows, by the names of their cases, tell."""
    trained = [row | {"case": name} for name, row in rows.items() if row["op"] == "train"]
    found = [_learning(group) for group in by_training(trained)]
    return sorted(found, key=lambda one: (one.protocol != "tuned", not one.is_learnable))  # what says most comes first


def arm_name(row: Row) -> str:
    """Return what an arm is called in figures."""
    if row["model"] not in ("sparse", "narrow"):
        return str(layer_named(row)["layer"] if row["model"] == UNPRUNED else row["model"])
    what = NARROW if row["model"] == "narrow" else f"{row['update']} {row['layer']}"
    return f"{what} {row['sparsity']:g}{unusual(row['distribution'])}"


def _learning(rows: Sequence[Row]) -> Learning:
    first = rows[0]
    arms = [group for _, group in by_fields(rows, *ARM)]
    seeds = len({row["seed"] for row in rows})
    of_dense = list({row["seed"]: row for row in rows}.values())
    level = statistics.mean(row["dense_test_accuracy"] for row in of_dense)
    told = [seed for row in of_dense if (seed := seed_of(row))]
    target = statistics.mean(seed.target for seed in told) if told else None
    curves = [curve for arm in arms if target is not None and (curve := _curve(arm, target))]
    what = (first["data"], shape_of(rows), first["protocol"], first["epochs"], conditions_of(rows))
    return Learning(*what, seeds, [_end(arm) for arm in arms], curves, level, target)


def _end(rows: Sequence[Row]) -> End:
    first = rows[0]
    # Both are counts of samples over their number: what is below 1e-9 is rounding.
    differences = [round(row["test_accuracy"] - row["dense_test_accuracy"], 9) for row in rows]
    return End(
        arm_name(first),
        first["case"],
        OverSeeds.of(rows, "test_accuracy"),
        OverSeeds.of(rows, "training_seconds").mean,
        first["flops_counted"],
        first["bytes_stored"],
        first.get("training_peak_bytes"),
        speedup_over_seeds(rows),
        difference_interval(differences) if len(rows) > 1 else None,
    )


def _curve(rows: Sequence[Row], target: float) -> Curve | None:
    """Return the curve of one arm over seeds that have one of as many epochs as the first, as long as all have one."""
    seeds = [(row, seed) for row in rows if (seed := seed_of(row))]
    told = [row for row, _ in seeds]
    told = [row for row in told if len(row["epoch_seconds"]) == len(told[0]["epoch_seconds"])]
    if not told:
        return None
    count = len(told[0]["epoch_seconds"])
    curves, times = ([gone_on(row, name) for row in told] for name in ("epoch_accuracies", "epoch_seconds"))
    epochs = []
    for number in range(1, min(map(len, times)) + 1):
        accuracies = [curve[number - 1] for curve in curves]
        accuracy = OverSeeds(statistics.mean(accuracies), min(accuracies), max(accuracies))
        seconds = statistics.mean(sum(took[:number]) for took in times)
        epochs.append(Epoch(number, accuracy, seconds, told[0]["flops_counted"] * number / count))
    reached = next((epoch for epoch in epochs if epoch.accuracy.mean >= target), None)
    return Curve(arm_name(told[0]), epochs, reached, median_of([seed.ratios.seconds for _, seed in seeds]))
