"""The rows of trainings in, the seed's table and one plain sentence for each sparsity out."""

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence

from rich.table import Table

from bench.runs.row import Row
from bench.statistics.intervals import Interval
from bench.statistics.verdicts import process_interval
from bench.tables.text import groups, interval_of, new_table, ratio, seconds, where


def arm_name(row: Row) -> str:
    """Return what the seed's table calls the row's model."""
    return row["model"] if row["model"] != "sparse" else f"{row['update']} {row['layer']}"


class Arm:
    """The rows of one arm, one a seed, as one line of the seed's table."""

    def __init__(self, rows: Sequence[Row]) -> None:
        """Gather the seeds' rows."""
        self.rows, self.first, self.name = rows, rows[0], arm_name(rows[0])

    def mean(self, field: str) -> float:
        """The mean of a field over the seeds."""
        return float(statistics.mean(row[field] for row in self.rows))

    def spread(self, field: str, digits: int = 3) -> str:
        """The mean of a field over the seeds, with its range."""
        values = [row[field] for row in self.rows]
        return f"{statistics.mean(values):.{digits}f} ({min(values):.{digits}f} {max(values):.{digits}f})"

    @property
    def speedup(self) -> Interval:
        """The speed-up over the processes of all seeds; over the pairs of epochs where there is but one."""
        speedups = [value for row in self.rows for value in row["process_speedups"]]
        return process_interval(speedups) if len(speedups) > 1 else interval_of(self.first)


def _arms(rows: Iterable[Row]) -> list[Arm]:
    return [Arm(group) for _, group in groups(rows, "model", "layer", "update", "sparsity")]


def _flops(value: float) -> str:
    return f"{value / 1e9:.3g} G"


COLUMNS: dict[str, Callable[[Arm], str]] = {
    "arm": lambda arm: arm.name,
    "sparsity": lambda arm: f"{arm.first['sparsity']:g}",
    "parameters": lambda arm: f"{arm.first['parameters']:,}",
    "non-zeros": lambda arm: f"{arm.first['nnz']:,}",
    "effective": lambda arm: f"{arm.first['effective_sparsity']:.3f}",
    "rate": lambda arm: f"{arm.first['learning_rate']:g}",
    "training": lambda arm: seconds(arm.mean("training_seconds")),
    "speed-up": lambda arm: ratio(arm.speedup),
    "final loss": lambda arm: arm.spread("final_loss"),
    "test accuracy": lambda arm: arm.spread("test_accuracy"),
    "counted": lambda arm: _flops(arm.first["flops_counted"]),
    "executed": lambda arm: _flops(arm.first["flops_executed"]),
}


def trainings(rows: list[Row]) -> tuple[str, Table]:
    """Return the table of a data set under a protocol, one line for each arm, and its title."""
    first = rows[0]
    seeds = len({row["seed"] for row in rows})
    title = (
        f"Trained on {first['data']}, protocol {first['protocol']}, {first['epochs']} epochs of batch {first['batch']} "
        f"({where(first)}): mean over {seeds} seed{'s' * (seeds != 1)} (lowest highest)"
    )
    table = new_table(COLUMNS)
    for arm in _arms(rows):
        table.add_row(*(cell(arm) for cell in COLUMNS.values()))
    return title, table


def summaries(rows: Sequence[Row]) -> Iterator[str]:
    """Yield one plain sentence per sparsity that sums up a data set under a protocol, every figure read from the rows.

    All sparse arms are told together: the best of them, chosen on the test set, would look better than it is.
    """
    arms = _arms(rows)
    for sparsity in sorted({arm.first["sparsity"] for arm in arms if arm.first["model"] == "sparse"}):
        group = [arm for arm in arms if arm.first["model"] == "sparse" and arm.first["sparsity"] == sparsity]
        faster = sum(arm.speedup.low > 1 for arm in group)
        slower = sum(arm.speedup.high < 1 for arm in group)
        if slower == len(group):
            verdict = "cost time"
        elif faster == len(group):
            verdict = "saved time"
        else:
            verdict = f"saved time in {faster} and cost time in {slower} of {len(group)} arms"
            if faster + slower < len(group):
                verdict += ", and is undecided in the others"
        promised = _between([arm.first["dense_flops_counted"] / max(arm.first["flops_counted"], 1) for arm in group], ".1f")
        text = (
            f"{group[0].first['data']}, {group[0].first['protocol']}: at sparsity {sparsity:g} sparse training {verdict}: "
            f"{_between([arm.speedup.median for arm in group], '.2f')} times dense's speed where counted FLOPs promise "
            f"{promised} times, {_quality(group)}"
        )
        narrow = [arm for arm in arms if arm.first["model"] == "narrow" and arm.first["sparsity"] == sparsity]
        if narrow:
            text += (
                f"; narrow dense of as many weights ran at {ratio(narrow[0].speedup)} times dense's speed, {_quality(narrow)}"
            )
        yield text + "."


def _quality(arms: Sequence[Arm]) -> str:
    accuracy = _between([arm.mean("test_accuracy") for arm in arms], ".3f")
    loss = _between([arm.mean("final_loss") for arm in arms], ".3f")
    dense_accuracy, dense_loss = arms[0].mean("dense_test_accuracy"), arms[0].mean("dense_final_loss")
    return f"at test accuracy {accuracy} (dense {dense_accuracy:.3f}) and training loss {loss} (dense {dense_loss:.3f})"


def _between(values: Sequence[float], style: str) -> str:
    low, high = (format(bound, style) for bound in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"
