"""The row: one plain record per measured case, which is saved, printed and compared.

Plain names; seconds, bytes, FLOPs; fractions in [0, 1]. `dense_*` is the same figure of the dense reference.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from bench.cases import Case, Shape
from bench.intervals import CONFIDENCE, MARGIN, median_interval, process_interval
from bench.pairing import Race

SCHEMA = 2

Row = dict[str, Any]
Facts = dict[str, Any]  # what a benchmark body says of its case, besides times


def row_of(case: Case, races: Sequence[Race], facts: Mapping[str, Any], verdict: str) -> Row:
    """Return the row of a case from its pairs, process by process, what its body said, and its verdict.

    The interval is over processes where there are at least two; `interval_over` says so, or that it is over the pairs of one.
    """
    shape = Shape.parse(case.shape)
    speedups = [race.speedup for race in races]
    over, interval = (
        ("processes", process_interval(speedups)) if len(races) > 1 else ("pairs", median_interval(races[0].speedups))
    )
    seconds = [time for race in races for time in race.seconds]
    dense_seconds = [time for race in races for time in race.dense_seconds]
    counted = facts["dense_flops_counted"] / facts["flops_counted"] if facts["flops_counted"] else None
    trained = case.op == "train"
    return {
        "schema": SCHEMA,
        **case._asdict(),
        "shape": shape.chain,
        "batch": shape.batch,
        "in_features": shape.sizes[0],
        "out_features": shape.sizes[-1],
        "regime": "warm",
        "seconds": statistics.median(seconds),
        "dense_seconds": statistics.median(dense_seconds),
        "speedup": interval.median,
        "speedup_low": interval.low,
        "speedup_high": interval.high,
        "confidence": CONFIDENCE,
        "interval_over": over,
        "verdict": verdict,
        "margin": MARGIN,
        "realised_fraction": interval.median / counted if counted else None,
        "processes": len(races),
        "process_speedups": speedups,
        "process_pairs": [len(race.seconds) for race in races],
        "pairs": len(seconds),
        "pair_seconds": seconds,
        "pair_dense_seconds": dense_seconds,
        **({"training_seconds": sum(seconds), "dense_training_seconds": sum(dense_seconds)} if trained else {}),
        **facts,
    }
