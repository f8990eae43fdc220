"""The rows of a step and of its parts in, where the step's time goes out."""

from collections.abc import Iterable, Mapping

from bench.cases import PARTS, Case
from bench.runs.row import Row
from bench.statistics.intervals import Interval, median_interval


def add_splits(rows: Mapping[Case, Row]) -> None:
    """Add to each step's row, where its parts were measured, the fraction of the step that each part takes.

    Every process has measured the whole and the parts, so each gives fractions of its own and what they leave over; the
    intervals are over processes. `adds_up` says whether that of `unaccounted` holds 0. What is in no part is ReLU, the graph
    walked by autograd, gradients reset and added up, and what the parts keep in caches that a whole step does not.
    """
    for case, row in rows.items():
        parts = {part: rows[of] for part in PARTS if (of := case._replace(op=part)) in rows}
        if case.op == "step" and len(parts) == len(PARTS):
            for arm in ("", "dense_"):
                row.update(_fractions(row, parts, arm))


def _fractions(whole: Row, parts: Mapping[str, Row], arm: str) -> Row:
    step = _by_process(whole, arm)
    times = {part: _by_process(row, arm) for part, row in parts.items()}
    common = sorted(set(step).intersection(*times.values()))
    if not common:
        return {}
    samples = {part: [times[part][process] / step[process] for process in common] for part in parts}
    samples["unaccounted"] = [1 - sum(fractions) for fractions in zip(*samples.values(), strict=True)]
    told: Row = {}
    for part, sample in samples.items():
        interval = median_interval(sample)
        told |= {
            f"{arm}{part}_fraction": interval.median,
            f"{arm}{part}_fraction_low": interval.low,
            f"{arm}{part}_fraction_high": interval.high,
        }
    told[f"{arm}adds_up"] = told[f"{arm}unaccounted_fraction_low"] <= 0 <= told[f"{arm}unaccounted_fraction_high"]
    return told


def update_steps(step: Row, updates: Iterable[Row]) -> dict[str, Interval]:
    """Return for each update rule the cost of one mask update in the layer's own steps: median and interval over processes."""
    own = _by_process(step)
    told: dict[str, Interval] = {}
    for row in updates:
        times = _by_process(row)
        if common := set(own) & set(times):
            told[row["update"]] = median_interval([times[process] / own[process] for process in common])
    return told


def _by_process(row: Row, arm: str = "") -> dict[int, float]:
    return dict(zip(row["process_numbers"], row[f"process_{arm}seconds"], strict=True))
