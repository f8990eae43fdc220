"""The rows of a step and of its parts in, where the step's time goes out."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from bench.cases import Case
from bench.findings.grouping import Place, Told, by_fields, by_place
from bench.grids import PARTS
from bench.runs.row import Row
from bench.statistics.intervals import Interval, median_interval

ALIKE = ("model", "layer", "sparsity")  # unpruned cases are of a layer's kernels, and not of that layer with all weights kept


class Part(NamedTuple):
    """A part of a step: its fraction of the layer's own step, where that is known, and its speed-up over dense's part."""

    fraction: float | None
    told: Told


class Split(NamedTuple):
    """Where the step of a layer goes: its seconds, its parts, what is in none of them, and mask updates in its own steps."""

    layer: str
    sparsity: float
    seconds: float | None  # None where the step itself was not measured
    parts: dict[str, Part]
    unaccounted: Interval | None
    adds_up: bool
    updates: dict[str, Interval]


class StepSplits(NamedTuple):
    """Where steps go at one place: which parts were measured, which update rules, and the layers."""

    place: Place
    parts: list[str]
    rules: list[str]
    splits: list[Split]


def step_splits(rows: Sequence[Row]) -> list[StepSplits]:
    """Return where the time of steps goes, at each place where parts of a step were measured."""
    found = []
    for place, parts in by_place(row for row in rows if row["op"] in PARTS):
        here = [row for row in rows if Place.of(row) == place]
        alike = dict(by_fields(here, *ALIKE))
        splits = [_split(group, alike[key]) for key, group in by_fields(parts, *ALIKE)]
        names = [part for part in PARTS if any(row["op"] == part for row in parts)]
        found.append(StepSplits(place, names, sorted({row["update"] for row in here if row["op"] == "update"}), splits))
    return found


def _split(parts: Sequence[Row], alike: Sequence[Row]) -> Split:
    """Return the split of a layer at a sparsity from the rows of its parts, and from all rows alike in these."""
    step = next((row for row in alike if row["op"] == "step"), None)
    known: Row = step if step and "unaccounted_fraction" in step else {}
    rest = Interval(*(known[f"unaccounted_fraction{end}"] for end in ("", "_low", "_high"))) if known else None
    return Split(
        parts[0]["layer"],
        parts[0]["sparsity"],
        step["seconds"] if step else None,
        {row["op"]: Part(known.get(f"{row['op']}_fraction"), Told.of(row)) for row in parts},
        rest,
        bool(known.get("adds_up")),
        update_steps(step, (row for row in alike if row["op"] == "update")) if step else {},
    )


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
