"""What became of all cases in, what is told of them together out: layers that changed, dense's time, what no clock measures."""

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from bench.comparisons.cases import VERDICTS, CaseChange
from bench.comparisons.layer_groups import Group
from bench.findings.grouping import layer_name
from bench.statistics.verdicts import MARGIN

# What no clock measures.
COSTS = ("bytes_stored", "peak_bytes", "training_peak_bytes", "flops_executed", "final_loss", "test_accuracy")
DECIDED = ("slower", "faster")


class LayerChange(NamedTuple):
    """How many of a layer's cases have a verdict, of how many, and the median of what they changed by, as a fraction."""

    layer: str
    verdict: str
    cases: int
    of: int
    much: float


class Summary(NamedTuple):
    """What is told of a whole comparison."""

    counts: dict[str, int]  # of cases, by verdict, in the order of VERDICTS
    layers: list[LayerChange]
    group_counts: dict[str, int]
    groups: list[Group]  # those that became slower or faster
    too_few: int  # cases that are undecided for too few processes
    dense: tuple[float, float, float] | None  # how many times as long dense took as before: lowest, median, highest case
    costs: list[str]
    judged: int  # cases that are in both runs and of which something is known
    least: float | None  # between saved runs, the slowdown below which none is told, as a fraction


def summary_of(changes: Sequence[CaseChange], groups: Sequence[Group], least: float | None = None) -> Summary:
    """Return what is told of all cases together, of the groups that were judged together, and of what is too small to tell."""
    drifts = [one.dense_time.median for one in changes if one.dense_time]
    return Summary(
        _counts(one.verdict for one in changes),
        [change for verdict in DECIDED for change in _layers(changes, verdict)],
        _counts(group.verdict for group in groups),
        [group for group in groups if group.verdict in DECIDED],
        sum("processes" in one.note for one in changes if one.verdict == "undecided"),
        (min(drifts), statistics.median(drifts), max(drifts)) if drifts else None,
        list(costs(changes)),
        sum(one.evidence is not None for one in changes),
        least,
    )


def _counts(verdicts: Iterable[str]) -> dict[str, int]:
    found = Counter(verdicts)
    return {verdict: found[verdict] for verdict in VERDICTS if found[verdict]}


def _layers(changes: Sequence[CaseChange], verdict: str) -> Iterator[LayerChange]:
    by_layer: dict[str, list[CaseChange]] = {}  # an update rule's cases beside those of the layer it moves
    for one in changes:
        if one.verdict == verdict:
            by_layer.setdefault(layer_name(one.row.model, one.row.layer), []).append(one)
    for layer, found in by_layer.items():
        of_layer = sum(layer_name(one.row.model, one.row.layer) == layer and one.evidence is not None for one in changes)
        yield LayerChange(layer, verdict, len(found), of_layer, statistics.median(abs(one.slowdown) for one in found))


def costs(changes: Iterable[CaseChange]) -> Iterator[str]:
    """Yield a line for each figure that no clock measures and that changed by more than the margin."""
    for one in changes:
        if one.old is None or one.new is None or one.verdict == "changed definition":
            continue
        for field in COSTS:
            before, after = (getattr(measured.row, field) for measured in (one.old, one.new))
            if before is None or after is None or before == after:
                continue
            if field == "test_accuracy":
                if abs(after - before) > 0.01:
                    yield f"{one.name}: {field} was {before:.3f} and is {after:.3f}"
            elif not before or abs(after / before - 1) > MARGIN:
                yield f"{one.name}: {field} was {before:.4g} and is {after:.4g}"
