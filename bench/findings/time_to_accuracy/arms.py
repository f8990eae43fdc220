"""The rows of trainings in, what each arm took until it was as accurate as dense over its seeds out, the soonest first."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from bench.findings.grouping import UNLEARNABLE, by_fields, by_training, conditions_of, shape_of
from bench.findings.time_to_accuracy.seeds import Seed, seed_of
from bench.findings.trainings import ARM, name_of
from bench.runs.row import Row
from bench.statistics.censoring import Bounds, Median, median_of, seen


class Arm(NamedTuple):
    """One arm: what it stores at its end and holds at most while it trains, in bytes over dense's, and what each seed tells."""

    name: str
    model: str
    sparsity: float
    stored: float | None
    peak: float | None
    seeds: Mapping[int, Seed]

    @property
    def there(self) -> int:
        """How many seeds were ever as accurate as asked."""
        return sum(seed.own.is_there for seed in self.seeds.values())

    @property
    def time_ratio(self) -> Median:
        """Its time until then over dense's."""
        return self.median(lambda seed: seed.ratios.seconds)

    @property
    def flops_ratio(self) -> Median:
        """Its counted FLOPs until then over dense's."""
        return self.median(lambda seed: seed.ratios.flops)

    @property
    def test_difference(self) -> Median:
        """Its test accuracy less dense's."""
        # Both are counts of samples over their number: what is below 1e-9 is rounding.
        return self.median(lambda seed: round(seed.test_accuracy - seed.dense_test_accuracy, 9))

    def median(self, figure: Callable[[Seed], Bounds | float]) -> Median:
        """Return what its seeds tell of a figure, be it seen or bounded."""
        figures = [figure(seed) for seed in self.seeds.values()]
        return median_of([one if isinstance(one, Bounds) else seen(one) for one in figures])

    def among(self, seeds: Iterable[int]) -> "Arm":
        """Return the arm by some of its seeds alone."""
        return self._replace(seeds={seed: self.seeds[seed] for seed in seeds})


class TimeToAccuracy(NamedTuple):
    """All arms that were trained beside the same dense."""

    data: str
    shape: str
    protocol: str
    epochs: int
    batch: int
    conditions: str
    seeds: int
    is_chosen: bool  # whether test accuracy is that of the epoch which the validation split chose; else of the last one
    goes_on: bool  # whether sparse and narrow arms had all of dense's time, and not only as many epochs (before schema 12)
    arms: list[Arm]


def time_to_accuracy(rows: Iterable[Row]) -> list[TimeToAccuracy]:
    """Return what arms with whole learning curves took, on each data set and shape; nothing on random labels."""
    found = []
    for group in by_training(row for row in rows if row["data"] not in UNLEARNABLE):
        first, dense_bytes = group[0], next((row["bytes_stored"] for row in group if row["model"] == "dense"), None)
        arms = [arm for _, of_arm in by_fields(group, *ARM) if (arm := _arm(of_arm, dense_bytes)).seeds]
        if arms:
            seeds = {(number, seed.is_chosen) for arm in arms for number, seed in arm.seeds.items()}
            what = (first["data"], shape_of(group), first["protocol"], first["epochs"], first["batch"])
            many = len({number for number, _ in seeds})
            is_chosen = all(chosen for _, chosen in seeds)
            goes_on = all("later_epoch_seconds" in row for row in group)
            found.append(TimeToAccuracy(*what, conditions_of(group), many, is_chosen, goes_on, sorted(arms, key=_soonest)))
    return found


def _arm(rows: Sequence[Row], dense_bytes: int | None) -> Arm:
    first = rows[0]
    dense = first.get("dense_bytes_stored") or dense_bytes
    stored = first["bytes_stored"] / dense if dense else None
    peaks = [first.get(field) for field in ("training_peak_bytes", "dense_training_peak_bytes")]
    peak = peaks[0] / peaks[1] if peaks[0] is not None and peaks[1] else None
    seeds = {row["seed"]: seed for row in rows if (seed := seed_of(row))}
    return Arm(name_of(first), first["model"], first["sparsity"], stored, peak, seeds)


def _soonest(arm: Arm) -> tuple[float, float]:
    median = arm.time_ratio.median
    return median.high, median.low
