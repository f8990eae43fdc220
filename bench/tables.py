"""Rows in, the answer in the terminal out."""

import io
import math
import statistics
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby

from rich import box
from rich.console import Console
from rich.table import Table

from bench.intervals import MARGIN, WRONG_VERDICTS, Interval, process_interval
from bench.row import Row

WIDTH = 10_000  # tables take only what they need, and no cell is ever cut; a narrow terminal wraps


def answer(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of all tables that `rows` fill, each with how to read it."""
    console = Console(file=io.StringIO(), width=WIDTH, highlight=False, color_system=None, legacy_windows=False)
    layers = [row for row in rows if row["op"] in ("forward", "backward", "step")]
    updates = [row for row in rows if row["op"] == "update"]
    trainings = [row for row in rows if row["op"] == "train"]
    for _, group in _groups(layers, "shape", "batch", "device", "dtype", "threads"):
        _print(console, *_speedups(group))
        console.print(_noise_floor(group))
    if layers:
        console.print(_verdicts(layers))
    for _, group in _groups(updates, "shape", "batch", "device", "dtype", "threads"):
        _print(console, *_update_costs(group))
    for _, group in _groups(trainings, "data", "protocol", "device", "dtype", "threads"):
        _print(console, *_trainings(group))
        for sentence in summaries(group):
            console.print(textwrap.fill(sentence, 120))
        console.print()
    assert isinstance(console.file, io.StringIO)
    yield from (line.rstrip() for line in console.file.getvalue().splitlines())


def _groups(rows: Iterable[Row], *fields: str) -> Iterator[tuple[tuple[str, ...], list[Row]]]:
    """Yield the rows that agree in `fields`, group by group, in order of first appearance."""

    def key(row: Row) -> tuple[str, ...]:
        return tuple(str(row[field]) for field in fields)

    rows = list(rows)
    order = list(dict.fromkeys(map(key, rows)))
    for value, group in groupby(sorted(rows, key=lambda row: order.index(key(row))), key):
        yield value, list(group)


def _what(row: Row) -> str:
    return f"{row['shape']} batch {row['batch']} ({_where(row)})"


def _interval(row: Row) -> Interval:
    return Interval(row["speedup"], row["speedup_low"], row["speedup_high"])


def _speedup(row: Row) -> str:
    return ratio(_interval(row))


def _where(row: Row) -> str:
    return f"{row['device']}, {row['dtype']}, {row['threads']} thread{'s' * (row['threads'] != 1)}"


def _print(console: Console, title: str, table: Table) -> None:
    console.print(title)  # apart, because a table's own title wraps at the table's width
    console.print(table)


def _table(headers: Iterable[str], left: int = 1) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, header in enumerate(headers):
        table.add_column(header, justify="left" if number < left else "right", no_wrap=True)
    return table


def ratio(interval: Interval | tuple[float, float, float]) -> str:
    """Return a ratio with its interval, as 1.45 [1.40 1.52]."""
    return "{} [{} {}]".format(*(f"{value:.2f}" if value < 10 else f"{value:.1f}" for value in interval))


def seconds(value: float) -> str:
    """Return a duration in the unit that suits it."""
    for limit, factor, unit in ((1e-3, 1e6, "us"), (1, 1e3, "ms")):
        if value < limit:
            return f"{value * factor:.3g} {unit}"
    return f"{value:.3g} s"


def _speedups(rows: list[Row]) -> tuple[str, Table]:
    rows = [row for row in rows if row["model"] != "dense"] or rows
    sparsities = sorted({row["sparsity"] for row in rows})
    title = f"Speed-up over dense by sparsity, {_what(rows[0])}: median of the processes [95 % interval]"
    table = _table(["operation", "layer", *(f"{sparsity:g}" for sparsity in sparsities), "break-even"], left=2)
    for (op, layer), group in _groups(rows, "op", "layer"):
        cells = {row["sparsity"]: f"{_speedup(row)} {MARKS[row['verdict']]}" for row in group}
        even = break_even(group) if len(group) > 1 else ""
        table.add_row(op, layer, *(cells.get(sparsity, "") for sparsity in sparsities), even)
    return title, table


MARKS = {"faster": "+", "slower": "-", "same": "=", "undecided": "?"}


def _verdicts(rows: list[Row]) -> str:
    """Return how many cases have which verdict, and what the marks mean."""
    found = Counter(row["verdict"] for row in rows)
    counts = ", ".join(f"{found[verdict]} {verdict} ({mark})" for verdict, mark in MARKS.items())
    return (
        f"Verdicts: {counts}. Over all cases, the chance of one wrong faster or slower is {WRONG_VERDICTS:.0%} at most; "
        f"same is an interval within {MARGIN:.0%} of 1.\n"
    )


def _noise_floor(rows: list[Row]) -> str:
    controls = [f"{row['op']} {_speedup(row)}" for row in rows if row["model"] == "dense"]
    text = ", ".join(controls) if controls else "not measured, add dense to --layer"
    return f"Noise floor, dense against its own clone: {text}.\n"


def break_even(rows: Sequence[Row]) -> str:
    """Return the sparsity from which on the layer is at least as fast as dense, with its interval, in words.

    Read off the measured points by straight lines in log speed-up over log density, for the medians and for both bounds of
    their intervals. A bound outside the range is told as such: [<0.5 0.84], or "none in range" where even the best case has
    dense ahead at the highest sparsity, and "below 0.5" where even the worst case has dense behind at the lowest.
    """
    rows = sorted(rows, key=lambda row: row["sparsity"])
    sparsities = [row["sparsity"] for row in rows]
    first, last = sparsities[0], sparsities[-1]
    middle, early, late = (
        crossing(sparsities, [row[field] for row in rows]) for field in ("speedup", "speedup_high", "speedup_low")
    )
    if early is None:
        return "none in range"
    if late is not None and late <= first:
        return f"below {first:g}"

    def told(bound: float | None) -> str:
        if bound is None:
            return f">{last:g}"
        return f"<{first:g}" if bound <= first else f"{bound:.2f}"

    return f"{told(middle)} [{told(early)} {told(late)}]"


def crossing(sparsities: Sequence[float], speedups: Sequence[float]) -> float | None:
    """Return the sparsity at which rising `speedups` last cross 1; the first if none is below 1, None if the last is."""
    if speedups[-1] < 1:
        return None
    below = [number for number, speedup in enumerate(speedups) if speedup < 1]
    if not below:
        return sparsities[0]
    (s0, s1), (y0, y1) = (values[below[-1] : below[-1] + 2] for values in (sparsities, [math.log(v) for v in speedups]))
    part = -y0 / (y1 - y0)
    if s1 == 1:  # a density of 0 has no logarithm
        return s0 + part * (s1 - s0)
    return 1 - math.exp((1 - part) * math.log(1 - s0) + part * math.log(1 - s1))


def _update_costs(rows: list[Row]) -> tuple[str, Table]:
    sparsities = sorted({row["sparsity"] for row in rows})
    title = f"Cost of one mask update in dense training steps, {_what(rows[0])}: median of the processes [95 % interval]"
    table = _table(["rule", "layer", *(f"{sparsity:g}" for sparsity in sparsities)], left=2)
    for (update, layer), group in _groups(rows, "update", "layer"):
        cells = {
            row["sparsity"]: f"{seconds(row['seconds'])} = "
            + ratio((1 / row["speedup"], 1 / row["speedup_high"], 1 / row["speedup_low"]))
            for row in group
        }
        table.add_row(update, layer, *(cells.get(sparsity, "") for sparsity in sparsities))
    return title, table


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
        return process_interval(speedups) if len(speedups) > 1 else _interval(self.first)


def _arms(rows: Iterable[Row]) -> list[Arm]:
    return [Arm(group) for _, group in _groups(rows, "model", "layer", "update", "sparsity")]


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


def _trainings(rows: list[Row]) -> tuple[str, Table]:
    first = rows[0]
    seeds = len({row["seed"] for row in rows})
    title = (
        f"Trained on {first['data']}, protocol {first['protocol']}, {first['epochs']} epochs of batch {first['batch']} "
        f"({_where(first)}): mean over {seeds} seed{'s' * (seeds != 1)} (lowest highest)"
    )
    table = _table(COLUMNS)
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
            verdict = f"saved time in {faster}, cost time in {slower} of {len(group)} arms, and is undecided in the others"
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
