"""What a file may lack, and how much it may hold, whatever else is right in it."""

import json

import pytest

from bench.runs.compact import compact
from bench.runs.files import as_json
from bench.runs.reading import parse
from tests.helpers.damaged import CONTENT, changed, refused
from tests.helpers.saved import row, saved, written

NO_PROCESSES: dict[str, list[float]] = {
    field: [] for field in ("process_numbers", "process_speedups", "process_seconds", "process_dense_seconds")
}


def test_a_file_of_too_many_cases_is_refused_for_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.runs.reading.MAX_CASES", 4)
    assert refused(CONTENT) == "more than 4 cases"


def test_a_case_without_processes_is_refused() -> None:
    assert "not one figure for each process" in refused(changed(**NO_PROCESSES))
    whole = json.loads(as_json(compact(saved({"a": row(), "b": row()}))))
    whole["rows"]["processes"] = [6, 0]
    assert "not one figure for each process" in refused(written(whole))


def test_a_commit_is_taken_as_it_is_unless_changes_are_told() -> None:
    assert not parse("run", written(saved(commit_info={"id": "c0ffee"}))).is_dirty
    assert parse("run", written(saved(commit_info={"id": "c0ffee", "dirty": True}))).is_dirty
