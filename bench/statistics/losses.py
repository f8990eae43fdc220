"""Differences of accuracies in, one a seed; what is lost with its interval, and whether that is more than a margin, out."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from bench.statistics.intervals import Interval
from bench.statistics.sequential import FEWEST
from bench.statistics.verdicts import difference_interval

# Of accuracy, as a fraction. On the fewest test samples, the 360 of digits, the accuracy of a single training has a standard
# error of 0.010 where it is 0.96: so much is no difference between models that other samples would be sure to show.
MARGIN_LOST = 0.01


class Loss(NamedTuple):
    """What is lost against dense over seeds, and whether that is more than MARGIN_LOST."""

    differences: list[float]  # dense's accuracy less the other's, one a seed
    interval: Interval | None  # None where there is but one seed
    verdict: Literal["little", "more", "undecided"]


def loss_of(dense: Sequence[float], own: Sequence[float]) -> Loss:
    """Return what `own` accuracies lose against those of dense, seed by seed."""
    # Both are counts of samples over their number: what is below 1e-9 is rounding.
    lost = [round(one - other, 9) for one, other in zip(dense, own, strict=True)]
    interval = difference_interval(lost) if len(lost) > 1 else None
    if interval is None or len(lost) < FEWEST:
        return Loss(lost, interval, "undecided")
    if interval.high <= MARGIN_LOST:
        return Loss(lost, interval, "little")
    return Loss(lost, interval, "more" if interval.low > MARGIN_LOST else "undecided")
