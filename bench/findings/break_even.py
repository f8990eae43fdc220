"""The rows of one layer at several sparsities in, the sparsity from which on it is at least as fast as dense out."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from bench.findings.grouping import by_fields
from bench.runs.row import Row
from bench.statistics.intervals import SIGN_VALUES, Interval, median_interval

# Where a curve does not cross 1 within the sparsities measured: dense is behind from the start, or ahead to the end.
BELOW, ABOVE = 0.0, 2.0
CURVE = (
    "op",
    "layer",
    "shape",
    "batch",
    "device",
    "dtype",
    "threads",
    "regime",
    "skew",
    "zeros",
)  # rows that agree in these are one curve


def break_even(rows: Sequence[Row], along: str = "sparsity") -> Interval:
    """Return the break-even sparsity, or other share, of `rows`, one for each, BELOW and ABOVE standing for out of their range.

    Each process has a curve of its own and thereby a break-even of its own; the interval is over those of the processes that
    measured all the rows. With fewer than SIGN_VALUES of them it is where the bounds of the rows' intervals cross 1.
    """
    rows = sorted(rows, key=lambda row: row[along])
    sparsities = [row[along] for row in rows]
    by_process = [dict(zip(row["process_numbers"], row["process_speedups"], strict=True)) for row in rows]
    common = sorted(set.intersection(*(set(curve) for curve in by_process)))
    if len(common) >= SIGN_VALUES:
        return median_interval([crossing(sparsities, [curve[process] for curve in by_process]) for process in common])
    return Interval(*(crossing(sparsities, [row[f] for row in rows]) for f in ("speedup", "speedup_high", "speedup_low")))


def crossing(sparsities: Sequence[float], speedups: Sequence[float]) -> float:
    """Return the sparsity at which rising `speedups` last cross 1; BELOW if none is below 1, ABOVE if the last is.

    Between two sparsities the logarithm of the speed-up is taken for a straight line over the logarithm of the density.
    """
    if speedups[-1] < 1:
        return ABOVE
    below = [number for number, speedup in enumerate(speedups) if speedup < 1]
    if not below:
        return BELOW
    (s0, s1), (y0, y1) = (values[below[-1] : below[-1] + 2] for values in (sparsities, [math.log(v) for v in speedups]))
    part = -y0 / (y1 - y0)
    if s1 == 1:  # a density of 0 has no logarithm
        return s0 + part * (s1 - s0)
    return 1 - math.exp((1 - part) * math.log(1 - s0) + part * math.log(1 - s1))


def break_evens(rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
    """Yield a plain record for each layer, operation and shape that `rows` hold at two sparsities or more."""
    sparse = [row for row in rows if row["model"] == "sparse" and row["op"] not in ("train", "update")]
    for _, group in by_fields(sparse, *CURVE):
        if len(group) > 1:
            even = break_even(group)
            at = {"sparsity": even.median, "sparsity_low": even.low, "sparsity_high": even.high}
            measured = {"measured_from": min(r["sparsity"] for r in group), "measured_to": max(r["sparsity"] for r in group)}
            yield {**{field: group[0][field] for field in CURVE}, **at, **measured, "told": told(even, group)}


def told(even: Interval, rows: Sequence[Row], along: str = "sparsity") -> str:
    """Return a break-even in words: 0.84 [0.81 0.85], [<0.5 0.84], "none in range", or "below 0.5"."""
    sparsities = [row[along] for row in rows]
    first, last = min(sparsities), max(sparsities)
    if even.low > last:
        return "none in range"
    if even.high <= first:
        return f"below {first:g}" if first else "from 0 on"

    def bound(value: float) -> str:
        return f"<{first:g}" if value < first else f">{last:g}" if value > last else f"{value:.2f}"

    return f"{bound(even.median)} [{bound(even.low)} {bound(even.high)}]"
