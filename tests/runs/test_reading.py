"""Saved files in, runs out: whatever a file holds, it is read right or refused in one line."""

import math
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.comparisons.comparison import compare
from bench.comparisons.machines import machines_of
from bench.machine.fingerprint import fingerprint, hardware
from bench.runs.files import MAX_BYTES
from bench.runs.locate import read_runs
from bench.runs.reading import parse, run_of
from bench.runs.row import SCHEMA
from bench.runs.saved import Run, interval
from bench.tables.comparison import markdown, text
from bench.tables.machines import lines as machines_lines
from sparse_models.errors import InputError
from tests.helpers.damaged import CONTENT, FORWARD, REFUSED, flipped, is_sentence, refused, spoil
from tests.helpers.saved import DELETE, facts, is_read, places, put, row, rows, saved, training, written

WHOLE, OTHER = saved(), parse("other", CONTENT)
FIGURE = ("benchmarks", 0, "extra_info", "seconds")
UNASKED = {"bound_fraction", "peak_bytes", "dense_layout", "dense_layout_gain", "epochs", "test_accuracy", "final_loss"}
UNASKED |= {"dirty", "cpu", "machine", "bounds"}  # the last two are not in runs of schemas 1 and 2


def told(run: Run, other: Run) -> str:
    """All that is ever printed of two runs."""
    comparison = compare(run, other)
    many = [line for runs in ([run, other], [run] * 8) for line in machines_lines(machines_of(runs))]
    lines = [*text(comparison), *markdown(comparison, [], "gate"), *many]
    assert all(line.isprintable() for line in lines)
    return "\n".join(lines)


def read_or_refused(content: bytes) -> bool:
    """Tell whether a file is read; if so, it can be compared."""
    try:
        run = parse("run", content)
    except InputError as error:
        why = str(error)
    else:
        told(run, OTHER)
        told(OTHER, run)
        return True
    assert is_sentence(why), why
    return False


def test_a_valid_file_reads_back_with_its_figures() -> None:
    run = parse("runs/0001_x.json", CONTENT)
    assert (run.name, run.time, run.commit, run.is_dirty) == ("runs/0001_x.json", WHOLE["datetime"], "c0ffee0123456789", False)
    assert run.label == "runs/0001_x.json (c0ffee012, 2026-01-02 03:04)"
    assert (run.machine, run.hardware) == (fingerprint(facts()), hardware(facts()))
    assert run.dense_gflops == {"cpu": 128.0}
    assert len(run.cases) == 4
    case = run.cases[FORWARD]
    assert case.speedups == {0: 1.5, 1: 2.0, 2: 2.5}
    assert case.dense_seconds == {0: 1.5e-3, 1: 2e-3, 2: 2.5e-3}
    assert interval(case) == (2.0, 1.5, 2.5)
    assert {name: getattr(case.row, name) for name in case.row.__struct_fields__ if name in rows()[FORWARD]} == {
        name: value for name, value in rows()[FORWARD].items() if name in case.row.__struct_fields__
    }


def test_the_seeds_of_an_arm_are_one_case_and_its_processes() -> None:
    [(name, arm)] = [(name, case) for name, case in parse("run", CONTENT).cases.items() if case.row.op == "train"]
    assert "seed0" not in name
    assert "seed1" not in name
    assert arm.speedups == {0: 1.5, 1: 2.5}
    assert interval(arm).median == 2.0
    assert interval(arm).low <= 1.5
    assert interval(arm).high >= 2.5


def test_this_sessions_run_is_what_would_be_read_back() -> None:
    assert run_of("run", WHOLE["datetime"], WHOLE["commit_info"], facts(), rows()) == parse("run", CONTENT)


def test_two_equal_runs_compare_as_the_same() -> None:
    run = parse("run", CONTENT)
    assert {one.verdict for one in compare(run, run).changes} == {"same"}
    assert "4 cases: 4 same" in told(run, run)


def test_a_file_cut_at_any_byte_is_refused() -> None:
    for end in range(len(CONTENT)):
        refused(CONTENT[:end])


def test_flipped_bits_are_refused_or_leave_a_run_that_can_be_compared() -> None:
    outcomes = [read_or_refused(flipped(CONTENT, seed)) for seed in range(500)]
    assert 50 < sum(outcomes) < 450  # both were met


@pytest.mark.parametrize("wrong", [True, {"a": []}, 10**400, "<b>"], ids=["bool", "object", "huge", "markup"])
def test_a_wrong_type_in_any_field_that_is_read_is_refused(wrong: Any) -> None:
    tried = 0
    for place in filter(is_read, places(WHOLE)):
        if (place[-1:], wrong) not in ((("dirty",), True), (("machine",), {"a": []})):
            refused(written(put(WHOLE, place, wrong)))
            tried += 1
    assert tried > 200


def test_what_is_not_read_may_be_anything_and_is_no_reason_to_fail() -> None:
    for place in places(WHOLE):
        for value in (None, True, "<b>\n\x1b[31m", [], {"a": [{}]}, 10**400, DELETE):
            if not is_read(place):
                assert parse("run", written(put(WHOLE, place, value))).cases == parse("run", CONTENT).cases


def test_a_missing_field_is_refused_but_for_what_a_run_may_lack() -> None:
    for place in filter(is_read, places(WHOLE)):
        if place and place[-1] not in UNASKED and place[-2:-1] != ("benchmarks",):
            refused(written(put(WHOLE, place, DELETE)))


SPOILED = {"infinite": "1e999", "nan": "NaN", "infinity": "Infinity", "minus": "-Infinity", "negative": "-1e-3", "zero": "0.0",
           "tiny": "1e-400", "large": "1e15", "digits": "1" * 5000, "null": "null", "text": '"1"', "plus": "+1"}  # fmt: skip


@pytest.mark.parametrize("literal", SPOILED.values(), ids=SPOILED)
def test_a_figure_that_is_no_positive_number_is_refused_in_every_row(literal: str) -> None:
    figures = [*("speedup", "speedup_low", "speedup_high", "seconds", "dense_seconds"), ("process_speedups", 1)]
    for case in range(5):
        for figure in [*figures, ("process_seconds", 0), ("process_dense_seconds", 0)]:
            place = ("benchmarks", case, "extra_info", *([figure] if isinstance(figure, str) else figure))
            if place[-1] != 1 or case < 3:
                refused(written(put(WHOLE, place, "HERE")).replace(b'"HERE"', literal.encode()))


@pytest.mark.parametrize("opened", ["[", '{"a":', '[{"a":', '{"machine":', '{"benchmarks":['])
def test_what_is_nested_without_end_is_refused_wherever_it_is(opened: str) -> None:
    deep = opened * 100_000
    refused(deep.encode())
    for place in [("version",), ("machine",), ("machine", "cpu"), ("machine", "cpu", "caches"), FIGURE,
                  ("machine", "bounds"), ("benchmarks",), ("benchmarks", 0), ("benchmarks", 0, "stats")]:  # fmt: skip
        refused(written(put(WHOLE, place, "HERE")).replace(b'"HERE"', deep.encode()))
    ends = {"[": "]", "{": "}"}
    closed = deep + "1" + "".join(ends[one] for one in reversed(deep) if one in ends)
    refused(written(put(WHOLE, ("version",), "HERE")).replace(b'"HERE"', closed.encode()))
    read_or_refused(written(put(WHOLE, ("benchmarks", 0, "stats"), "HERE")).replace(b'"HERE"', closed.encode()))


@pytest.mark.parametrize("schema", [0, SCHEMA + 1, 99, -5, 10**30, True, False, "5", None, 5.5, [5], {}, DELETE])
def test_rows_of_another_schema_are_refused(schema: Any) -> None:
    why = refused(written(put(WHOLE, ("benchmarks", 1, "extra_info", "schema"), schema)))
    assert "schema" in why or "not a run of this suite" in why


@pytest.mark.parametrize("content", REFUSED.values(), ids=REFUSED)
def test_what_is_no_run_is_refused_in_one_line(content: bytes) -> None:
    refused(content)


def test_a_million_benchmarks_are_refused_in_bounded_time_and_memory() -> None:
    many = b'{"commit_info":{"id":""},"datetime":"","benchmarks":[%s]}'
    for one in (b"{}", b'{"fullname":"","extra_info":0}', b'{"fullname":"a","extra_info":{"schema":5}}'):
        start = time.monotonic()
        refused(many % b",".join([one] * 1_000_000))
        assert time.monotonic() - start < 20
        content = many % b",".join([one] * 50_000)
        tracemalloc.start()  # which slows all down
        try:
            refused(content)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 10 * len(content)


LIMITS = {"lowest": math.nextafter(1e-15, 1), "highest": math.nextafter(1e15, 0)}


def extreme(speedup: float, seconds: float, dense: float, processes: int) -> dict[str, Any]:
    """Rows whose figures are all at the bounds of what is read."""
    many = {
        "process_numbers": [*range(processes)], "process_speedups": [speedup] * processes,
        "process_seconds": [seconds] * processes, "process_dense_seconds": [dense] * processes,
        "speedup": speedup, "speedup_low": min(LIMITS.values()), "speedup_high": max(LIMITS.values()),
        "seconds": seconds, "dense_seconds": dense, "gflops": dense, "bound_fraction": seconds, "skew": 1e6,
        "bytes_stored": 2**53 - 1, "peak_bytes": 0, "final_loss": speedup,
    }  # fmt: skip
    ends = {f"x{sparsity}": row(**many | {"sparsity": sparsity, "verdict": "faster"}) for sparsity in (0.0, 5e-324, 1.0)}
    seeds = {f"t-seed{seed}": training(seed, speedup=speedup, speedup_low=speedup, speedup_high=speedup) for seed in range(2)}
    dense_rows = {"dense": row(**many | {"layer": "dense", "model": "dense"})}
    return saved(ends | seeds | dense_rows, machine=facts(bounds={"cpu": {"dense_gflops": speedup}}))


ends_of_a_run = st.tuples(*[st.sampled_from([*LIMITS.values(), 1.0])] * 3, st.sampled_from([1, 2, 3, 9]))


@given(st.tuples(ends_of_a_run, ends_of_a_run))
def test_figures_at_the_bounds_of_what_is_read_never_overflow(ends: tuple[tuple[float, float, float, int], ...]) -> None:
    old, new = (parse("run", written(extreme(*end))) for end in ends)
    told(old, new)
    for paired in (False, True):
        assert len([*text(compare(old, new, paired=paired))]) > 2


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from([*filter(is_read, places(WHOLE))]), json_values)
def test_any_value_anywhere_is_refused_or_leaves_a_run_that_can_be_compared(place: tuple[Any, ...], value: Any) -> None:
    read_or_refused(written(put(WHOLE, place, value)))


@given(st.binary(max_size=200) | json_values.map(written))
def test_any_other_file_is_refused(content: bytes) -> None:
    refused(content)


def test_a_folder_of_damaged_files_gives_the_good_run_and_a_line_for_each_other(tmp_path: Path) -> None:
    others, open_files = spoil(tmp_path), len(list(Path("/dev/fd").iterdir()))
    (tmp_path / "0001_good.json").write_bytes(CONTENT)
    tracemalloc.start()
    try:
        runs, skipped = read_runs([str(tmp_path)])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [Path(run.name).name for run in runs] == ["0001_good.json"]
    assert len(skipped) == others
    assert all(map(is_sentence, skipped))
    assert sum(line.endswith(".json: not a file") for line in skipped) == 2  # neither waited for nor read without end
    assert sum(line.endswith(".json: more than 64 MiB") for line in skipped) == 2
    assert peak < 4 * MAX_BYTES
    assert len(list(Path("/dev/fd").iterdir())) == open_files
