"""Rows as they are read back tell what they told when they were measured."""

import json
import math
from pathlib import Path

import pytest

from bench.findings.answer import answer_of
from bench.findings.figures.entries import anchors, entries
from bench.findings.figures.sources import source_of
from bench.runs.locate import read_runs
from tests.helpers.in_process import ROOT
from tests.helpers.reports import read, rows_of, run_of_rows

RUNS = sorted(path for folder in ("znver5*", "AMD*5ff3") for path in (ROOT / ".benchmarks").glob(f"{folder}/*.json"))


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.name[:4])
def test_what_a_saved_run_tells_of_its_steps_is_what_was_saved_of_them(path: Path) -> None:
    """Fractions of a step are worked out anew, and stand in the files of the runs as well."""
    [run], _ = read_runs([str(path)])
    rows = source_of(run).rows
    saved = {one["fullname"]: one["extra_info"] for one in json.loads(path.read_text())["benchmarks"]}
    assert rows.keys() == saved.keys()
    for name, row in rows.items():
        for field, value in saved[name].items():
            if field.endswith("_fraction") and field in row and field != "bound_fraction":
                told = row[field]
                assert told == value or math.isclose(told, value, rel_tol=1e-3, abs_tol=1e-3), (name, field)


def test_every_case_has_an_anchor_of_its_own_and_points_find_it() -> None:
    rows = source_of(run_of_rows(rows_of())).rows
    found = entries(rows)
    assert [one.case for one in found] == [*rows]
    assert len({one.anchor for one in found}) == len(found)
    links = anchors(found)
    for speed_ups in answer_of(list(rows.values())).speed_ups:
        for curve in speed_ups.curves:
            for sparsity in curve.points:
                entry = next(one for one in found if one.anchor == links[curve.op, curve.layer, sparsity, speed_ups.place])
                assert (entry.op, entry.layer, entry.sparsity) == (curve.op, curve.layer, sparsity)


def test_the_noise_floor_of_a_case_is_that_of_dense_at_its_place() -> None:
    dense = {"op": "forward", "model": "dense", "layer": "dense", "sparsity": 0.0}
    rows = {
        "a": read(**dense, speedup=1.25, speedup_low=1.0, speedup_high=1.5), "b": read(op="forward"), "c": read(op="backward"),
        "d": read(op="forward", batch=9),
    }  # fmt: skip
    floors = {one.case: one.noise for one in entries(source_of(run_of_rows(rows)).rows)}
    assert floors == {"a": (1.25, 1.0, 1.5), "b": (1.25, 1.0, 1.5), "c": None, "d": None}
