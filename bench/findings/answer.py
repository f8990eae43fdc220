"""The rows of a run in, everything that is told of it out, computed once: what prints, draws or exports only renders this."""

from collections.abc import Sequence
from typing import NamedTuple

from bench.findings.activations.by_zeros import ByZeros, by_zeros
from bench.findings.activations.thresholds import Thresholds, thresholds
from bench.findings.advice import Advice, advice
from bench.findings.costs import (
    Bandwidth,
    Energy,
    Interference,
    Memory,
    Pruned,
    Roofline,
    UpdateCosts,
    bandwidths,
    energies,
    interferences,
    memories,
    pruned,
    rooflines,
    update_costs,
)
from bench.findings.grouping import layer_named
from bench.findings.other_dense import OtherDense, other_dense
from bench.findings.speedups import (
    AtEqualSparsity,
    Fractions,
    SpeedUps,
    Verdicts,
    patterns,
    realised,
    speed_ups,
    verdict_counts,
)
from bench.findings.step_split import StepSplits, step_splits
from bench.findings.time_to_accuracy.arms import TimeToAccuracy, time_to_accuracy
from bench.findings.trainings import Trainings, trainings
from bench.grids import OF_A_MODEL, PARTS, UNPRUNED, WHOLE
from bench.runs.row import Row


class Answer(NamedTuple):
    """All findings of a run; what was not measured is empty."""

    speed_ups: list[SpeedUps]
    verdicts: Verdicts | None  # of all speed-ups over dense; None where no whole operation was measured
    patterns: list[AtEqualSparsity]
    other_dense: list[OtherDense]
    realised: list[Fractions]
    rooflines: list[Roofline]
    bandwidths: list[Bandwidth]
    memories: list[Memory]
    energies: list[Energy]
    step_splits: list[StepSplits]
    update_costs: list[UpdateCosts]
    interferences: list[Interference]
    trainings: list[Trainings]
    time_to_accuracy: list[TimeToAccuracy]
    pruned: list[Pruned]
    advice: list[Advice]
    by_zeros: list[ByZeros]
    thresholds: list[Thresholds]


def answer_of(rows: Sequence[Row]) -> Answer:
    """Return the findings that `rows` tell."""
    held_against = [layer_named(row) for row in rows if row["op"] in (*WHOLE, *OF_A_MODEL)]
    whole = [row for row in held_against if row["model"] != UNPRUNED]  # which is no layer to choose, and keeps every weight
    parts = [row for row in rows if row["op"] in PARTS]
    beside = [row for row in rows if row["op"] == "beside"]
    trained = [row for row in rows if row["op"] == "train"]
    cut = [row for row in rows if row["op"] == "pruned"]
    return Answer(
        speed_ups(whole),
        verdict_counts(whole + parts + beside + cut) if whole or cut else None,
        patterns(whole),
        other_dense(held_against),
        realised(whole),
        rooflines(whole + parts),
        bandwidths(whole),
        memories(whole),
        energies(whole),
        step_splits(rows),
        update_costs([row for row in rows if row["op"] == "update"]),
        interferences(beside),
        trainings(trained),
        time_to_accuracy(trained),
        pruned(cut),
        advice(trained),
        by_zeros(whole),
        thresholds([row for row in rows if row["op"] == "threshold"]),
    )
