"""A run in an eighth of its bytes: the same figures to six digits, and pairs that numpy unpacks in two lines."""

import base64
import json
import math
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.cases import Case
from bench.runs.compact import compact, rows_of
from bench.runs.files import as_json
from bench.runs.outcome import Outcome, Race
from bench.runs.reading import parse
from bench.runs.row import row_of
from tests.helpers.damaged import flipped, refused
from tests.helpers.fake_engine import FACTS
from tests.helpers.in_process import ROOT
from tests.helpers.rows import row as fields
from tests.helpers.saved import row, rows, saved
from tests.runs.test_reading import read_or_refused
from tests.runs.test_upgrades import COUNTED, content, is_read_or_refused, run

COMPACT = as_json(compact(saved()))
CASE = Case("forward", "sparse", "csr", "static", "8x8b4", 0.5, "cpu", "float32", 1)
times = st.lists(st.floats(1e-7, 1e2), min_size=1, max_size=9)


@given(st.lists(st.tuples(times, st.data()), min_size=1, max_size=4), st.booleans())
def test_pairs_come_back_as_the_docstring_unpacks_them(processes: list[tuple[list[float], st.DataObject]], waits: bool) -> None:
    outcome = Outcome()
    for number, (seconds, data) in enumerate(processes):
        dense = [value * data.draw(st.floats(0.1, 10)) for value in seconds]
        waited = [data.draw(st.floats(0, 1)) for _ in seconds] if waits else []
        if waits and not number:  # one process at least has something to say
            waited[0] = 0.0
        outcome.add(number, Race(seconds, dense, waited=waited, dense_waited=waited), FACTS)
    full = row_of(CASE, outcome, "undecided")
    saved_run = compact(saved({"one": full, "other": full}))
    logs = np.frombuffer(zlib.decompress(base64.b64decode(saved_run["pairs"])), "<i2").reshape(4, -1) * 2e-4
    assert logs.shape == (4, 2 * len(full["pair_seconds"]))
    for at, field in enumerate(("seconds", "dense_seconds")):
        close = np.array(full[field]) * np.exp(logs[at, : logs.shape[1] // 2])
        inside = abs(np.log(np.array(full[f"pair_{field}"]) / full[field])) < 6.5  # what 16 bits hold
        assert np.allclose(close[inside], np.array(full[f"pair_{field}"])[inside], rtol=1.1e-4)
    assert np.allclose(logs[2, : logs.shape[1] // 2], full["pair_waited"] or -1, atol=1.1e-4)
    figures = np.frombuffer(base64.b64decode(saved_run["process_figures"]), "<f4").reshape(3, -1)
    assert np.allclose(figures[0], full["process_speedups"] * 2, rtol=1e-6)
    counts = saved_run["rows"]["process_pairs"]
    assert (np.sum(counts) if isinstance(counts, list) else counts * full["processes"]) in (logs.shape[1], logs.shape[1] / 2)


def test_the_default_run_is_small() -> None:
    [path] = ROOT.glob(".benchmarks/AMDEPYC-2cores-torch2.13.0-python3.11-7b5ff3/0005_*.json")
    whole = json.loads(path.read_bytes())
    assert len(whole["benchmarks"]) == 260
    assert len(as_json(compact(whole))) <= 400_000


def test_what_is_not_all_ours_is_saved_as_it_is() -> None:
    for other in ({}, {"python": "3.11"}, {name: value for name, value in row().items() if name != "pair_waited"}):
        whole = saved(rows() | {"test_x": other})
        assert compact(whole) is whole


@pytest.mark.parametrize("count", [10**8, 2**62, 2**70, 0, 1.5, True])
def test_counts_that_cancel_are_refused_at_once(count: Any) -> None:
    whole = json.loads(COMPACT)
    whole["rows"]["processes"] = [count, 6 - count, 3, 1, 1]
    refused(as_json(whole))


def test_what_is_not_read_of_a_table_is_walked_past() -> None:
    whole = json.loads(COMPACT)
    whole["rows"] |= {f"field {number}": number for number in range(1000)} | {"deep": [[[]]] * 1000}
    assert parse("run", as_json(whole)).cases == parse("run", COMPACT).cases


def test_a_compact_file_cut_at_any_byte_is_refused() -> None:
    for end in range(0, len(COMPACT), 3):
        refused(COMPACT[:end])


def test_flipped_bits_of_a_compact_file_are_refused_or_leave_a_run_that_can_be_compared() -> None:
    outcomes = [read_or_refused(flipped(COMPACT, seed)) for seed in range(500)]
    assert 50 < sum(outcomes) < 450  # both were met


def test_a_compact_run_is_the_same_to_six_digits() -> None:
    for name, case in run(6).cases.items():
        before = run(5).cases[name]
        assert all(math.isclose(getattr(case.row, f), getattr(before.row, f), rel_tol=5e-6) for f in ("seconds", "speedup"))
        assert all(getattr(case.row, field) == getattr(before.row, field) for field in COUNTED)
        assert list(case.speedups) == list(before.speedups)
        assert all(math.isclose(case.seconds[one], before.seconds[one], rel_tol=5e-6) for one in before.seconds)


def test_a_run_of_one_case_is_compact_too() -> None:
    whole = json.loads(content(5))
    whole["benchmarks"] = whole["benchmarks"][:1]
    whole["benchmarks"][0]["extra_info"] |= {"schema": 6, "process_pairs": [2, 4, *[2] * 6]}
    whole["benchmarks"][0]["extra_info"]["process_numbers"] = [*range(7), 9]
    saved = json.dumps(compact(whole)).encode()
    [case] = parse("one", saved).cases.values()
    assert list(case.speedups) == [*range(7), 9]


@pytest.mark.parametrize("value", [None, "x", "AAAA", [], [None], {}, -1, 10**400, {"processes": 3}, {"processes": -1}])
@pytest.mark.parametrize("field", ["rows", "process_figures", "pairs", "schema", "benchmarks"])
def test_a_table_made_to_harm_is_refused_or_read(field: str, value: Any) -> None:
    whole = json.loads(content(6))
    for harmed in (whole | {field: value}, whole | {"rows": whole["rows"] | {"processes": value, "process_numbers": value}}):
        is_read_or_refused(harmed)


def logs_of(whole: dict[str, Any]) -> Any:
    return np.frombuffer(zlib.decompress(base64.b64decode(whole["pairs"])), "<i2").reshape(4, -1) * 2e-4


def test_a_list_that_all_cases_have_alike_is_that_of_each() -> None:
    whole = compact(saved({name: row(process_pairs=[1, 2, 3]) for name in "ab"}))
    found = rows_of(whole["rows"], whole["process_figures"], [{}, {}])
    assert [one["process_pairs"] for one in found] == [[1, 2, 3]] * 2


def test_what_a_case_is_keeps_all_its_digits() -> None:
    [case] = parse("one", as_json(compact(saved({"a": row(sparsity=0.123456789)})))).cases.values()
    assert case.row.sparsity == 0.123456789


def test_waits_are_the_candidates_and_then_denses() -> None:
    logs = logs_of(compact(saved({"a": row(pair_waited=[0.25] * 6, pair_dense_waited=[0.5] * 6)})))
    assert logs[2:].tolist() == [pytest.approx([0.25] * 6), pytest.approx([0.5] * 6)]


def test_what_16_bits_do_not_hold_is_the_farthest_that_they_do() -> None:
    logs = logs_of(compact(saved({"a": row(pair_seconds=[*[1e-3] * 4, 1e-9, 1e6])})))
    assert logs[0].tolist() == pytest.approx([*[0] * 4, -6.5536, 6.5534])


def test_figures_of_more_processes_than_there_are_is_refused() -> None:
    whole = json.loads(COMPACT)
    figures = base64.b64decode(whole["process_figures"])
    whole["process_figures"] = base64.b64encode(figures + figures[:12]).decode()
    assert "not one figure for each process" in refused(json.dumps(whole).encode())


def test_every_field_is_kept_but_for_what_others_tell() -> None:
    full = fields() | row()
    whole = compact(saved({"a": full}))
    assert full.keys() - whole["rows"].keys() == {
        *("schema", "effective_sparsity", "gflops", "realised_fraction", "interval_over", "process_numbers"),
        *("process_speedups", "process_seconds", "process_dense_seconds"),
        *("pair_seconds", "pair_dense_seconds", "pair_waited", "pair_dense_waited"),
    }


def test_pytest_benchmarks_options_are_kept_once() -> None:
    whole = saved()
    for benchmark in whole["benchmarks"]:
        benchmark["options"] = {"timer": "perf_counter"}
    assert compact(whole)["options"] == {"timer": "perf_counter"}
    assert not any("options" in benchmark for benchmark in compact(whole)["benchmarks"])
