"""The row: one plain record per measured case, which is saved, printed and compared.

Plain names; seconds, bytes, FLOPs; fractions in [0, 1]. `dense_*` is the same figure of the dense reference.
"""

import statistics
from collections.abc import Sequence
from typing import Any

import torch

from bench.cases import Case
from bench.grids import stored
from bench.runs.outcome import Outcome, Race
from bench.shapes import Shape
from bench.statistics.intervals import CONFIDENCE, median_interval
from bench.statistics.verdicts import MARGIN, process_interval

SCHEMA = 12

Row = dict[str, Any]
Facts = dict[str, Any]  # what a benchmark body says of its case, besides times


def row_of(case: Case, outcome: Outcome, verdict: str) -> Row:
    """Return the row of a case from its pairs, process by process, what its body said, and its verdict.

    A process without an undisturbed pair says nothing: its pairs are kept, behind those of the others, and count nowhere. One
    process at least must say something. The interval is over processes where there are at least two that do; `interval_over`
    says so, or that it is over the pairs of one.
    """
    shape = Shape.parse(case.shape)
    telling, facts, speedups = outcome.telling, outcome.facts, outcome.speedups
    races = list(telling.values())
    every = [*races, *(race for race in outcome.races if not race.undisturbed)]
    over, interval = (
        ("processes", process_interval(speedups)) if len(races) > 1 else ("pairs", median_interval(races[0].speedups))
    )
    seconds = [time for race in every for time in race.seconds]
    dense_seconds = [time for race in every for time in race.dense_seconds]
    waited = [fraction for race in every for fraction in race.waited]
    dense_waited = [fraction for race in every for fraction in race.dense_waited]
    counted = facts["dense_flops_counted"] / facts["flops_counted"] if facts["flops_counted"] else None
    trained = case.op == "train"
    by_process = {arm: [race.median(arm) for race in races] for arm in ("seconds", "dense_seconds")}
    seconds_a_call = statistics.median(by_process["seconds"])
    calls = facts.get("epochs", 1)  # of which a training consists, and its FLOPs are those of all
    gflops = facts["flops_executed"] / calls / seconds_a_call / 1e9
    bounded = {}
    if "bound_gflops" in facts:  # one load of a vector for each multiply-add of as many numbers: half as many numbers as FLOPs
        loaded = gflops / 2 * getattr(torch, stored(case.dtype)).itemsize
        bounded = {"tile_gb_per_s": loaded}
        if gflops <= facts["bound_gflops"] * (1 + MARGIN):  # what code exceeds by more than that is no bound
            bounded["bound_fraction"] = min(1.0, gflops / facts["bound_gflops"])
    handovers = [statistics.median(race.handovers or [0.0]) for race in races]  # 0 where it is not known
    known = {"process_handover_seconds": handovers} if any(handovers) else {}
    on_host = ("host_seconds", "dense_host_seconds") if all(race.host_seconds for race in races) else ()  # on a GPU
    return {
        "schema": SCHEMA,
        **case._asdict(),
        "shape": shape.chain,
        "batch": shape.batch,
        "in_features": shape.sizes[0],
        "out_features": shape.sizes[-1],
        "seconds": seconds_a_call,
        "dense_seconds": statistics.median(by_process["dense_seconds"]),
        **{arm: statistics.median(race.median(arm) for race in races) for arm in on_host},
        "speedup": interval.median,
        "speedup_low": interval.low,
        "speedup_high": interval.high,
        "confidence": CONFIDENCE,
        "interval_over": over,
        "verdict": verdict,
        "margin": MARGIN,
        "gflops": gflops,
        **bounded,
        "realised_fraction": interval.median / counted if counted else None,
        "processes": len(races),
        "process_numbers": list(telling),
        "process_speedups": speedups,
        "process_seconds": by_process["seconds"],
        "process_dense_seconds": by_process["dense_seconds"],
        **known,
        "process_pairs": [len(race.seconds) for race in every],
        "pairs": len(seconds),
        "pair_seconds": seconds,
        "pair_dense_seconds": dense_seconds,
        "pair_waited": waited,
        "pair_dense_waited": dense_waited,
        "undisturbed_pairs": sum(len(race.undisturbed) for race in races),
        **(_of_training(every) if trained else {}),
        **facts,
    }


def _of_training(races: Sequence[Race]) -> Row:
    """Return the time of a training, of which each pair is an epoch; those after the last are of the arm alone."""
    epochs = Race([], [])
    for race in races:
        epochs = epochs.joined(race)
    told = epochs.mended
    whole = {"training_seconds": sum(told.seconds), "dense_training_seconds": sum(told.dense_seconds)}
    by_epoch = {"epoch_seconds": told.seconds, "dense_epoch_seconds": told.dense_seconds, "later_epoch_seconds": told.later}
    return {**whole, **by_epoch}
