"""What arms took until they were as accurate as dense in, a table of it out: one line for each, the soonest first."""

from collections.abc import Callable

from bench.findings.time_to_accuracy.arms import Arm, TimeToAccuracy
from bench.findings.time_to_accuracy.seeds import MARGIN
from bench.statistics.censoring import Median
from bench.statistics.intervals import SIGN_VALUES
from bench.tables.grid import Grid
from bench.tables.text import seconds

GOING_ON = ", then sparse and narrow arms alone until dense's time is over"

COLUMNS: dict[str, Callable[[Arm], str]] = {
    "arm": lambda arm: arm.name,
    "sparsity": lambda arm: f"{arm.sparsity:g}",
    "there in": lambda arm: f"{arm.there} of {len(arm.seeds)}",
    "time over dense's": lambda arm: str(arm.time_ratio),
    "epochs": lambda arm: str(arm.median(lambda seed: seed.ratios.epochs)),
    "FLOPs": lambda arm: str(arm.flops_ratio),
    "bytes": lambda arm: "" if arm.stored is None else f"{arm.stored:.2f}",
    "peak": lambda arm: "-" if arm.peak is None else f"{arm.peak:.2f}",
    "took": lambda arm: arm.median(lambda seed: seed.own.seconds).median.told(seconds),
    "dense": lambda arm: arm.median(lambda seed: seed.dense.seconds).median.told(seconds),
    "in epochs": lambda arm: arm.median(lambda seed: seed.own.epochs).median.told("{:g}".format),
    "dense in": lambda arm: arm.median(lambda seed: seed.dense.epochs).median.told("{:g}".format),
    "accuracy then": lambda arm: _accuracy(arm.median(lambda seed: seed.when_dense_is_there)),
    "at dense's end": lambda arm: _accuracy(arm.median(lambda seed: seed.when_dense_ends)),
    "dense's": lambda arm: _accuracy(arm.median(lambda seed: seed.dense_ends)),
    "test accuracy": lambda arm: _accuracy(arm.median(lambda seed: seed.test_accuracy)),
    "points over dense's": lambda arm: points(arm.test_difference),
}


def time_to_accuracy_table(found: TimeToAccuracy) -> tuple[str, Grid]:
    """Return the table of a data set, shape and protocol, and its title."""
    over = f"median over {found.seeds} seeds [95 % interval]"
    if found.seeds < SIGN_VALUES:
        over = f"median over {found.seeds} seed{'s' * (found.seeds != 1)} (range; {SIGN_VALUES} have an interval)"
    at = "at the epoch that the validation split chose" if found.is_chosen else "at the end of the training"
    title = (
        f"Time to dense's accuracy on {found.data}, {found.shape}, {found.protocol}, {found.epochs} epochs of batch "
        f"{found.batch}{GOING_ON if found.goes_on else ''} ({found.conditions}): until an epoch within {MARGIN:g} of dense's "
        f"best on the validation split, seed by seed; {over}; >: never there in all it took; test accuracy {at}"
    )
    table = Grid(COLUMNS, keys=2)
    for arm in found.arms:
        table.add_row(*(cell(arm) for cell in COLUMNS.values()))
    return title, table


def points(difference: Median) -> str:
    """Return a difference of accuracies in percentage points with its interval or its range, as -0.3 [-0.8 0.2]."""
    middle, low, high = (round(value * 100, 1) + 0.0 for value in (difference.median.low, *difference.outer))  # no -0.0
    if difference.interval:
        return f"{middle:.1f} [{low:.1f} {high:.1f}]"
    return f"{middle:.1f} ({low:.1f} {high:.1f})" if low < high else f"{middle:.1f}"


def _accuracy(accuracy: Median) -> str:
    return accuracy.median.told("{:.3f}".format)
