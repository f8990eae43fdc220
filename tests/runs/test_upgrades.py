"""Saved runs of every schema there was are read: what they hold comes out as it is, and what they lack as not known."""

import contextlib
import itertools
import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest

from bench.comparisons.comparison import compare
from bench.comparisons.history import all_series
from bench.comparisons.machines import machines_of
from bench.runs.reading import parse
from bench.runs.row import SCHEMA
from bench.runs.saved import Run, arm_of
from bench.runs.upgrades import facts_of, upgraded
from bench.tables.comparison import text
from bench.tables.machines import lines as machines_lines
from sparse_models.errors import InputError
from tests.helpers.saved import row

SAVED = Path(__file__).parent / "saved"
SCHEMAS = range(1, SCHEMA + 1)
KEPT = ("shape", "batch", "sparsity", "threads", "regime", "seconds", "dense_seconds", "speedup", "speedup_low", "speedup_high")
COUNTED = ("flops_counted", "dense_flops_counted", "flops_executed", "parameters", "nnz", "bytes_stored")
WAITING = {
    1: "counted",
    2: "counted",
    3: "left out",
    4: "taken off",
    5: "taken off",
    6: "taken off",
    7: "never counted",
    8: "never counted",
    9: "never counted",
    10: "never counted",
    11: "never counted",
    12: "never counted",
}


def content(schema: int) -> bytes:
    return (SAVED / f"schema_{schema}.json").read_bytes()


def run(schema: int) -> Run:
    return parse(f"schema_{schema}", content(schema))


def is_read_or_refused(harmed: Any) -> None:
    with contextlib.suppress(InputError):  # anything else would be a crash
        parse("harmed", json.dumps(harmed).encode())


def plain(schema: int) -> dict[str, dict[str, Any]]:
    return {case["fullname"]: case["extra_info"] for case in json.loads(content(schema))["benchmarks"]}


@pytest.mark.parametrize("schema", range(1, 6))
def test_figures_come_out_as_they_were_saved(schema: int) -> None:
    read, rows = run(schema), plain(schema)
    assert set(read.cases) == {arm_of(name) for name in rows}
    for name, case in read.cases.items():
        saved = rows.get(name) or rows[name.replace("-cpu", "-seed0-cpu")]
        assert all(getattr(case.row, field) == saved[field] for field in (*KEPT, *COUNTED))
        assert case.row.dense_layout == saved.get("dense_layout")
        assert case.row.test_accuracy == saved.get("test_accuracy")
        if case.row.op != "train" and schema > 1:
            assert list(case.speedups.values()) == saved["process_speedups"]
        assert case.row.verdict == saved.get("verdict", "undecided")


@pytest.mark.parametrize("schema", SCHEMAS)
def test_what_was_not_recorded_is_not_known(schema: int) -> None:
    for case in run(schema).cases.values():
        row = case.row
        assert row.waiting == WAITING[schema]
        assert schema >= 8 or row.dense_layout_gain is None
        assert row.bound_fraction is None
        assert row.skew == row.zeros == 0
        unusual = "erk" if schema >= 8 and row.model in ("sparse", "narrow") else "uniform"
        assert row.distribution == (unusual if row.op == "train" else "-")
        assert (row.epoch_test_accuracies is not None) == (row.op == "train" and schema >= 10)
        assert (row.later_epoch_seconds is not None) == (row.op == "train" and schema >= 12)
        assert (row.dense_variant is not None) == (row.op == "train")
        assert len(case.speedups) == (3 if row.op == "train" else 0 if schema == 1 else len(row.process_numbers))
        assert (row.interval_over == "pairs") == (schema == 1 or row.op == "train")


def test_medians_by_process_follow_from_the_pairs_where_all_of_them_counted() -> None:
    [(name, saved)] = [each for each in plain(2).items() if "bench_forward[dense" in each[0]]
    count = saved["process_pairs"][0]
    assert run(2).cases[name].seconds[0] == statistics.median(saved["pair_seconds"][:count])
    assert len(run(2).cases[name].dense_seconds) == saved["processes"]


def test_what_a_training_reaches_is_by_the_flops_of_an_epoch() -> None:
    [row] = [case.row for case in run(5).cases.values() if case.row.op == "train"]
    assert row.epochs is not None
    assert math.isclose(row.gflops, row.flops_executed / row.epochs / row.seconds / 1e9)


@pytest.mark.parametrize(("old", "new"), list(itertools.product(SCHEMAS, repeat=2)))
def test_any_two_are_compared(old: int, new: int) -> None:
    before, now = run(old), run(new)
    compared = compare(before, now)
    assert list(text(compared))
    assert list(machines_lines(machines_of([before, now])))
    assert all_series([before, now])
    for one in compared.changes:
        if one.old and one.new and one.old.row.waiting != one.new.row.waiting:
            assert one.verdict == "changed definition"
        elif old != new and 1 in (old, new) and one.row.op != "train":
            assert one.verdict in ("undecided", "new", "gone")


def test_machines_are_told_apart_by_what_old_files_tell_of_them() -> None:
    assert run(1).machine == run(2).machine
    assert len({run(schema).machine for schema in SCHEMAS}) == 5


@pytest.mark.parametrize("schema", [0, SCHEMA + 1, -1, "x", True, None, 2.5, 10**30])
def test_an_unknown_schema_is_refused_in_a_sentence(schema: Any) -> None:
    for version in (1, 5):
        whole = json.loads(content(version))
        whole["benchmarks"][0]["extra_info"]["schema"] = schema
        with pytest.raises(InputError) as refused:
            parse("other", json.dumps(whole).encode())
        assert "\n" not in str(refused.value)
    whole = json.loads(content(6)) | {"schema": schema}
    with pytest.raises(InputError):
        parse("other", json.dumps(whole).encode())


@pytest.mark.parametrize("schema", range(1, 6))
@pytest.mark.parametrize("value", [None, "x", [], [None], {}, -1, [[1]], 10**400])
def test_rows_made_to_harm_are_refused_or_read(schema: int, value: Any) -> None:
    whole = json.loads(content(schema))
    for field, there in whole["benchmarks"][1]["extra_info"].items():
        for other in (value, *([[value] * len(there)] if isinstance(there, list) else ())):
            harmed = json.loads(content(schema))
            harmed["benchmarks"][1]["extra_info"][field] = other
            is_read_or_refused(harmed)


def test_an_upgrade_leaves_the_saved_row_alone() -> None:
    row = next(iter(plain(1).values()))
    before = json.dumps(row)
    assert upgraded(row)["schema"] == SCHEMA
    assert json.dumps(row) == before


def old_row(**fields: Any) -> dict[str, Any]:
    """A row of two processes, before medians of each were saved."""
    seconds = [1.0, 2.0, 9.0, 3.0, 4.0, 8.0]
    pairs = {"process_pairs": [3, 3], "pair_seconds": seconds, "pair_dense_seconds": [2 * value for value in seconds]}
    one = row(schema=2, process_speedups=[2.0, 2.0], process_numbers=[0, 1], **pairs)
    del one["process_seconds"], one["process_dense_seconds"]
    return one | fields


def test_each_process_of_an_old_row_has_the_median_of_its_own_pairs_in_either_arm() -> None:
    found = upgraded(old_row())
    assert (found["process_seconds"], found["process_dense_seconds"]) == ([2.0, 4.0], [4.0, 8.0])


def test_medians_that_were_saved_stay_as_they_are() -> None:
    found = upgraded(old_row(schema=3, process_seconds=[5.0, 6.0], process_dense_seconds=[7.0, 8.0], pair_disturbed=[]))
    assert (found["process_seconds"], found["process_dense_seconds"]) == ([5.0, 6.0], [7.0, 8.0])


@pytest.mark.parametrize("pairs", [[3, 2], [3, 4]])
def test_pairs_that_belong_to_no_process_are_refused(pairs: list[int]) -> None:
    with pytest.raises(InputError, match="not one process for each pair"):
        upgraded(old_row(process_pairs=pairs))


def test_processors_of_one_name_are_told_apart_by_family_model_and_stepping() -> None:
    numbers = {"brand_raw": "EPYC", "family": 25, "model": 1, "stepping": 1}
    told = [facts_of({"cpu": numbers | {field: 9}}) for field in numbers]
    assert len({str(facts["cpu"]) for facts in told}) == len(numbers)
