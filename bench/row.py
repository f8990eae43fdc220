"""The row: one plain record per measured case, which is saved, printed and compared.

Plain names; seconds, bytes, FLOPs; fractions in [0, 1]. `dense_*` is the same figure of the dense reference.
"""

import statistics
from typing import Any

from bench.cases import Case, Shape
from bench.intervals import CONFIDENCE, median_interval
from bench.processes import Outcome
from bench.verdicts import MARGIN, process_interval

SCHEMA = 3

Row = dict[str, Any]
Facts = dict[str, Any]  # what a benchmark body says of its case, besides times


def row_of(case: Case, outcome: Outcome, verdict: str) -> Row:
    """Return the row of a case from its pairs, process by process, what its body said, and its verdict.

    The interval is over processes where there are at least two; `interval_over` says so, or that it is over the pairs of one.
    """
    shape = Shape.parse(case.shape)
    races, facts, speedups = outcome.races, outcome.facts, outcome.speedups
    over, interval = (
        ("processes", process_interval(speedups)) if len(races) > 1 else ("pairs", median_interval(races[0].speedups))
    )
    seconds = [time for race in races for time in race.seconds]
    dense_seconds = [time for race in races for time in race.dense_seconds]
    counted = facts["dense_flops_counted"] / facts["flops_counted"] if facts["flops_counted"] else None
    trained = case.op == "train"
    host = {
        name: statistics.median(times)
        for name in ("host_seconds", "dense_host_seconds")
        if (times := [time for race in races for time in getattr(race, name)])  # on a GPU
    }
    return {
        "schema": SCHEMA,
        **case._asdict(),
        "shape": shape.chain,
        "batch": shape.batch,
        "in_features": shape.sizes[0],
        "out_features": shape.sizes[-1],
        "seconds": statistics.median(statistics.median(race.seconds) for race in races),
        "dense_seconds": statistics.median(statistics.median(race.dense_seconds) for race in races),
        "speedup": interval.median,
        "speedup_low": interval.low,
        "speedup_high": interval.high,
        "confidence": CONFIDENCE,
        "interval_over": over,
        "verdict": verdict,
        "margin": MARGIN,
        "realised_fraction": interval.median / counted if counted else None,
        "processes": len(races),
        "process_numbers": outcome.processes,
        "process_speedups": speedups,
        "process_pairs": [len(race.seconds) for race in races],
        "pairs": len(seconds),
        "pair_seconds": seconds,
        "pair_dense_seconds": dense_seconds,
        **host,
        **({"training_seconds": sum(seconds), "dense_training_seconds": sum(dense_seconds)} if trained else {}),
        **facts,
    }


def process_seconds(row: Row, field: str) -> dict[int, float]:
    """Return the median of a row's `pair_seconds` or `pair_dense_seconds` in each process, by the process's number."""
    times = iter(row[field])
    return {
        process: statistics.median(next(times) for _ in range(pairs))
        for process, pairs in zip(row["process_numbers"], row["process_pairs"], strict=True)
    }
