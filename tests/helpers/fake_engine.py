"""Drawn figures in the place of measured ones: all of a run but its clocks, in a second. Also a pytest plugin that does so.

A file levels.json, in the working directory, says the speed-up of each layer; those it does not name have 1. All pairs of the
layer that it names as `disturbed` were. Where it says `failing`, every case failed.
"""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from bench.engine.jobs import Effort, Job, Results, Spent
from bench.engine.processes import Means
from bench.runs.outcome import Outcome, Race

FACTS = {
    **dict.fromkeys(("parameters", "weights", "nnz", "bytes_stored", "dense_bytes_stored"), 64),
    **dict.fromkeys(("flops_counted", "flops_executed", "dense_flops_counted", "dense_flops_executed"), 1e6),
    "dense_layout": "batch-major",
    "dense_layout_gain": 1.0,
    "layout": "batch-major",
    "effective_sparsity": 0.5,
}


def drawn(jobs: list[Job], effort: Effort, _: Any, means: Means) -> Results:
    """What `measure_against_best` would return, had it measured the levels with a little noise."""
    path = Path("levels.json")
    levels = json.loads(path.read_text()) if path.exists() else {}
    draw = random.Random(json.dumps(levels))
    outcomes = {job.name: Outcome() for job in jobs}
    for process in range(effort.processes):
        if means.turns:
            means.turns.take(f"process {process + 1}")
        for job in jobs:
            pairs = [1e-3 * draw.lognormvariate(0, 0.002) for _ in range(6)]
            level = levels.get(job.case.layer, 1.0)
            waited = [0.5 if job.case.layer == levels.get("disturbed") else 0.0] * 6
            race = Race(pairs, [level * seconds for seconds in pairs], waited=waited, dense_waited=[0.0] * 6)
            outcomes[job.name].add(process, race, FACTS)
    if levels.get("failing"):
        for outcome in outcomes.values():
            outcome.failure = "a planted failure"
    if levels.get("interrupted") and means.journal:
        means.journal.add(0, jobs[0].name, {"failure": "none"})
    return Results(outcomes, bool(levels.get("interrupted")), False, Spent())


def replace_engine(patch: pytest.MonkeyPatch) -> None:
    """Put drawn figures in the place of measured ones."""
    from bench.hooks import measuring  # noqa: PLC0415  # not before pytest has loaded it as the plugin that it is

    patch.setattr(measuring, "measure_against_best", drawn)
    for name in ("dense_gflops", "memory_gb_per_s"):
        patch.setattr(measuring, name, lambda _: 100.0)


def pytest_configure() -> None:
    """Replace the engine for good."""
    replace_engine(pytest.MonkeyPatch())
