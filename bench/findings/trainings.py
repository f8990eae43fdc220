"""The rows of trainings in, what came of each arm over its seeds out, and a sentence on each sparsity."""

import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from bench.findings.grouping import (
    NARROW,
    UNKNOWN,
    by_fields,
    by_training,
    conditions_of,
    layer_named,
    shape_of,
    speedup_of,
)
from bench.grids import DISTRIBUTION, UNPRUNED
from bench.runs.row import Row
from bench.statistics.intervals import Interval
from bench.statistics.verdicts import process_interval

ARM = ("model", "layer", "update", "sparsity", "distribution")  # rows that agree in these are one arm
# The same for all seeds of an arm.
OF_AN_ARM = (
    "model",
    "layer",
    "sparsity",
    "parameters",
    "nnz",
    "effective_sparsity",
    "learning_rate",
    "flops_counted",
    "flops_executed",
)


class OverSeeds(NamedTuple):
    """The mean of a figure over the seeds, and its range."""

    mean: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, rows: Sequence[Row], field: str) -> "OverSeeds":
        """Return what the rows of an arm, one a seed, say of a field."""
        return cls.over([row[field] for row in rows])

    @classmethod
    def over(cls, values: Sequence[float]) -> "OverSeeds":
        """Return the mean and the range of one value for each seed, at least one."""
        return cls(float(statistics.mean(values)), min(values), max(values))

    def __str__(self) -> str:
        """Return the mean with the range, as 0.955 (0.953 0.956)."""
        return "{:.3f} ({:.3f} {:.3f})".format(*self)


class Arm(NamedTuple):
    """What came of one arm: a model, an update rule, a layer, a sparsity."""

    name: str
    model: str
    layer: str
    sparsity: float
    distribution: str
    parameters: int
    nnz: int
    effective_sparsity: float
    learning_rate: float
    seconds: float  # of a training
    speedup: Interval  # over the processes of all seeds; over the pairs of epochs where there is but one
    final_loss: OverSeeds
    test_accuracy: OverSeeds
    dense_final_loss: float
    dense_test_accuracy: float
    flops_counted: float
    flops_executed: float
    flops_saved: float  # dense's counted FLOPs over the arm's


class Trainings(NamedTuple):
    """All arms on one data set under one protocol, and what is to be said of them."""

    data: str
    shape: str
    protocol: str
    epochs: int
    batch: int
    conditions: str
    seeds: int
    arms: list[Arm]
    sentences: list[str]


def trainings(rows: Iterable[Row]) -> list[Trainings]:
    """Return the arms of each data set, shape and protocol, under each condition."""
    found = []
    for group in by_training(rows):
        first, arms = group[0], [arm_of(of_arm) for _, of_arm in by_fields(group, *ARM)]
        what = (first["data"], shape_of(group), first["protocol"], first["epochs"], first["batch"], conditions_of(group))
        seeds = len({row["seed"] for row in group})
        found.append(Trainings(*what, seeds, arms, list(_sentences(f"{first['data']}, {first['protocol']}", arms))))
    return found


def arm_of(rows: Sequence[Row]) -> Arm:
    """Return what the rows of one arm, one a seed, tell."""
    first = rows[0]
    return Arm(
        name=name_of(first),
        distribution=first.get("distribution", UNKNOWN),
        seconds=OverSeeds.of(rows, "training_seconds").mean,
        speedup=speedup_over_seeds(rows),
        final_loss=OverSeeds.of(rows, "final_loss"),
        test_accuracy=OverSeeds.of(rows, "test_accuracy"),
        dense_final_loss=OverSeeds.of(rows, "dense_final_loss").mean,
        dense_test_accuracy=OverSeeds.of(rows, "dense_test_accuracy").mean,
        flops_saved=first["dense_flops_counted"] / max(first["flops_counted"], 1),
        **{field: first[field] for field in OF_AN_ARM},
    )


def name_of(row: Row) -> str:
    """Return what tables call an arm."""
    names = {"sparse": f"{row['update']} {row['layer']}", UNPRUNED: str(layer_named(row)["layer"])}
    name = names.get(row["model"], str(row["model"]))
    return name + unusual(row.get("distribution", UNKNOWN))


def speedup_over_seeds(rows: Sequence[Row]) -> Interval:
    """Return the speed-up of an arm over the processes of all its seeds, over the pairs of epochs where there is but one."""
    speedups = [value for row in rows for value in row["process_speedups"]]
    return process_interval(speedups) if len(speedups) > 1 else speedup_of(rows[0])


def _sentences(what: str, arms: Sequence[Arm]) -> Iterator[str]:
    """Yield one plain sentence for each sparsity, every figure read from the rows.

    All sparse arms are told together: the best of them, chosen on the test set, would look better than it is.
    """
    for at, group, narrow in _by_sparsity(arms):
        text = (
            f"{what}: at sparsity {at} sparse training {_verdict(group)}: "
            f"{_between([arm.speedup.median for arm in group], '.2f')} times dense's speed where counted FLOPs promise "
            f"{_between([arm.flops_saved for arm in group], '.1f')} times, {_quality(group)}"
        )
        if narrow:
            text += f"; narrow dense of as many weights ran at {narrow[0].speedup} times dense's speed, {_quality(narrow)}"
        for arm in arms:
            text += f"; {arm.name}, which keeps every weight, at {arm.speedup} times" if arm.model == UNPRUNED else ""
        yield text + "."


def _by_sparsity(arms: Sequence[Arm]) -> Iterator[tuple[str, list[Arm], list[Arm]]]:
    """Yield each sparsity and distribution in words, its sparse arms, and the narrow dense ones."""
    for sparsity, distribution in sorted({(arm.sparsity, arm.distribution) for arm in arms if arm.model == "sparse"}):
        group = [arm for arm in arms if (arm.sparsity, arm.distribution) == (sparsity, distribution)]
        sparse, narrow = ([arm for arm in group if arm.model == model] for model in ("sparse", "narrow"))
        yield f"{sparsity:g}{unusual(distribution)}", sparse, narrow


def unusual(distribution: str) -> str:
    """Return a distribution of sparsity over layers in words, nothing for the usual one."""
    return "" if distribution in (UNKNOWN, DISTRIBUTION) else f" {distribution}"


def _verdict(arms: Sequence[Arm]) -> str:
    faster = sum(arm.speedup.low > 1 for arm in arms)
    slower = sum(arm.speedup.high < 1 for arm in arms)
    if slower == len(arms):
        return "cost time"
    if faster == len(arms):
        return "saved time"
    mixed = f"saved time in {faster} and cost time in {slower} of {len(arms)} arm{'s' * (len(arms) != 1)}"
    return f"{mixed}, and is undecided in the others" if faster + slower < len(arms) else mixed


def _quality(arms: Sequence[Arm]) -> str:
    accuracy = _between([arm.test_accuracy.mean for arm in arms], ".3f")
    loss = _between([arm.final_loss.mean for arm in arms], ".3f")
    return (
        f"at test accuracy {accuracy} (dense {arms[0].dense_test_accuracy:.3f}) and training loss {loss} "
        f"(dense {arms[0].dense_final_loss:.3f})"
    )


def _between(values: Sequence[float], style: str) -> str:
    low, high = (format(bound, style) for bound in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def brief(found: Trainings) -> Iterator[str]:
    """Yield what was found in a few words for each sparsity, all sparse arms together, with dense and narrow dense beside."""
    for at, group, narrow in _by_sparsity(found.arms):
        text = (
            f"training on {found.data} ({found.protocol}) at {at}: {_counted(group)}, "
            f"{_between([arm.speedup.median for arm in group], '.2f')}x, "
            f"accuracy {_between([arm.test_accuracy.mean for arm in group], '.3f')} "
            f"(dense {group[0].dense_test_accuracy:.3f})"
        )
        if narrow:
            text += f"; {NARROW} {narrow[0].speedup}x, accuracy {narrow[0].test_accuracy.mean:.3f}"
        text += "".join(f"; {arm.name} {arm.speedup}x" for arm in found.arms if arm.model == UNPRUNED)
        yield text


def _counted(arms: Sequence[Arm]) -> str:
    counts = {"faster": sum(arm.speedup.low > 1 for arm in arms), "slower": sum(arm.speedup.high < 1 for arm in arms)}
    counts["undecided"] = len(arms) - sum(counts.values())
    return (
        f"{', '.join(f'{count} {what}' for what, count in counts.items() if count)} of {len(arms)} arm{'s' * (len(arms) != 1)}"
    )
