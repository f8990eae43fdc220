"""The row of a training in, what it and the dense beside it took until they were as accurate as dense is at its best out."""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from bench.runs.row import Row
from bench.statistics.censoring import Bounds, seen
from sparse_models.updates import UPDATES

# Of accuracy, as a fraction: dense's best epoch is the luckiest of its own, and an arm need not have that luck to be as good.
MARGIN = 0.005
# What a training must tell of itself, and of the dense beside it. Each of the two has as many epochs as accuracies.
CURVES = ("epoch_accuracies", "epoch_seconds", "dense_epoch_accuracies", "dense_epoch_seconds")
TESTED = ("epoch_test_accuracies", "dense_epoch_test_accuracies")  # from schema 10 on
MOMENTS = 100  # of an epoch at which a schedule is looked at


class Taken(NamedTuple):
    """What a training took until it was as accurate as asked; of one that never was, all of it is the lower bound."""

    epochs: Bounds
    seconds: Bounds  # of the epochs alone: no evaluation is in them
    flops: Bounds  # counted

    @property
    def is_there(self) -> bool:
        """Whether it was ever as accurate."""
        return math.isfinite(self.epochs.high)

    def over(self, other: "Taken") -> "Taken":
        """Return the ratios to what another took."""
        return Taken(*(own.over(others) for own, others in zip(self, other, strict=True)))


class Seed(NamedTuple):
    """One training beside dense of the same seed."""

    target: float  # dense's best accuracy on the validation split, less the margin
    own: Taken
    dense: Taken
    when_dense_is_there: float  # its accuracy after the last epoch that it had done by then; 0 where it had done none
    when_dense_ends: float
    dense_ends: float  # accuracy
    test_accuracy: float  # at the epoch that its validation split chose where `is_chosen`, else at its end
    dense_test_accuracy: float
    is_chosen: bool

    @property
    def ratios(self) -> Taken:
        """What it took over what dense of the same seed did."""
        return self.own.over(self.dense)


def seed_of(row: Row) -> Seed | None:
    """Return what a training tells; None where it has no learning curves, or none that are whole."""
    if any(not row.get(field) for field in CURVES):
        return None
    own, seconds, dense, dense_seconds = (gone_on(row, field) for field in CURVES)
    if len(own) != len(seconds) or len(dense) != len(dense_seconds):
        return None
    # Counts of samples over their number: what is below 1e-9 is rounding.
    target = max(dense) - MARGIN - 1e-9
    until, dense_until = list(accumulate(seconds)), list(accumulate(dense_seconds))
    dense_taken = _taken(dense, dense_until, _even(row["dense_flops_counted"] / len(dense), len(dense)), target)
    chosen = _chosen(row, own, dense)
    return Seed(
        target=target,
        own=_taken(own, until, _flops(row, len(own)), target),
        dense=dense_taken,
        when_dense_is_there=_accuracy_at(own, until, dense_taken.seconds.low),
        when_dense_ends=_accuracy_at(own, until, dense_until[-1]),
        dense_ends=dense[-1],
        test_accuracy=chosen[0] if chosen else row["test_accuracy"],
        dense_test_accuracy=chosen[1] if chosen else row["dense_test_accuracy"],
        is_chosen=chosen is not None,
    )


def gone_on(row: Row, field: str) -> list[float]:
    """Return what a row tells of each epoch, with those after as many as dense had (from schema 12 on)."""
    return [*(row.get(field) or []), *(row.get(f"later_{field}") or [])]


def _taken(accuracies: Sequence[float], seconds: Sequence[float], flops: Sequence[float], target: float) -> Taken:
    """Return what was taken, of which `seconds` and `flops` tell how much until the end of each epoch."""
    epoch = next((number for number, accuracy in enumerate(accuracies) if accuracy >= target), None)
    totals = ([float(number) for number in range(1, len(accuracies) + 1)], seconds, flops)
    return Taken(*(Bounds(total[-1], math.inf) if epoch is None else seen(total[epoch]) for total in totals))


def _accuracy_at(accuracies: Sequence[float], seconds: Sequence[float], moment: float) -> float:
    done = sum(end <= moment for end in seconds)
    return accuracies[done - 1] if done else 0.0


def _chosen(row: Row, own: Sequence[float], dense: Sequence[float]) -> tuple[float, float] | None:
    """Return the test accuracies of own and dense at the first of their best epochs; None where they were not recorded."""
    tested = [gone_on(row, field) for field in TESTED]
    if [len(each) for each in tested] != [len(own), len(dense)]:
        return None
    return tested[0][own.index(max(own))], tested[1][dense.index(max(dense))]


def _flops(row: Row, epochs: int) -> list[float]:
    """Return the counted FLOPs until the end of each epoch: as many in each, or as its rule's schedule has the weights.

    The schedule ends with the epochs that dense has as well; each later one has as many as the weights of its end.
    """
    rule, whole = UPDATES.get(row["update"]), len(row["epoch_accuracies"])
    if rule is None or not rule.resizes:
        return _even(row["flops_counted"] / whole, epochs)
    moments = whole * MOMENTS
    progress = (min(1.0, (number + 0.5) / moments) for number in range(epochs * MOMENTS))
    weights = list(accumulate(1 - rule.sparsity_at(row["sparsity"], one) for one in progress))
    return [row["flops_counted"] * weights[MOMENTS * number - 1] / weights[moments - 1] for number in range(1, epochs + 1)]


def _even(flops: float, epochs: int) -> list[float]:
    return [flops * number for number in range(1, epochs + 1)]
