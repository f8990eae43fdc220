"""What is told of a whole comparison follows from what became of its cases."""

from typing import Any

import pytest

from bench.comparisons.cases import VERDICTS, CaseChange
from bench.comparisons.layer_groups import Group
from bench.comparisons.summary import LayerChange, summary_of
from bench.runs.saved import Measured
from bench.statistics.intervals import Interval
from bench.statistics.verdicts import Evidence
from tests.helpers.rows import saved_row, saved_run


def evidence(ratio: float) -> Evidence:
    interval = Interval(ratio, ratio * 0.99, ratio * 1.01)
    return Evidence(interval, 0.001, interval, suffices=True)


def case(**fields: Any) -> Measured:
    return saved_run({"a": saved_row(**fields)}).cases["a"]


def changed(verdict: str, ratio: float | None = None, dense: float | None = None, note: str = "", **fields: Any) -> CaseChange:
    time = None if dense is None else Interval(dense, dense, dense)
    found = None if ratio is None else evidence(ratio)
    return CaseChange("a", verdict, case(**fields), case(**fields), found, dense_time=time, note=note)


def test_a_layers_cases_are_those_that_could_be_judged_and_its_change_their_median() -> None:
    changes = [*(changed("slower", 1 / ratio) for ratio in (1.1, 1.2, 1.6)), changed("same", 1.0), changed("new")]
    [told] = summary_of(changes, []).layers
    assert told[:-1] == LayerChange("csr", "slower", 3, 4, 0.0)[:-1]
    assert told.much == pytest.approx(0.2)


def test_a_layers_kernels_with_every_weight_kept_are_not_told_as_that_layer() -> None:
    controls = [changed("slower", 1 / 1.3, model=model) for model in ("unpruned", "narrow")]
    told = {one.layer: (one.cases, one.of) for one in summary_of([changed("slower", 1 / 1.1), *controls], []).layers}
    assert told == {"csr": (1, 1), "unpruned csr": (1, 1), "narrow dense": (1, 1)}


def test_verdicts_are_counted_in_their_order() -> None:
    counts = summary_of([changed(verdict) for verdict in ("gone", "same", "slower", "same")], []).counts
    assert list(counts.items()) == [("slower", 1), ("same", 2), ("gone", 1)]
    assert list(summary_of([changed(verdict) for verdict in reversed(VERDICTS)], []).counts) == list(VERDICTS)


def test_of_the_groups_those_that_changed_are_told_and_all_are_counted() -> None:
    found = [Group(verdict, ["a"], evidence(1.0), verdict) for verdict in ("undecided", "slower", "same")]
    summary = summary_of([], found)
    assert [group.name for group in summary.groups] == ["slower"]
    assert summary.group_counts == {"slower": 1, "same": 1, "undecided": 1}


def test_denses_time_is_told_by_its_lowest_median_and_highest_case() -> None:
    assert summary_of([changed("same", 1.0, dense) for dense in (1.0, 1.9, 0.8)], []).dense == (0.8, 1.0, 1.9)
    assert summary_of([changed("same", 1.0)], []).dense is None


def test_cases_of_too_few_processes_are_counted_and_those_that_were_not_saved_are_not() -> None:
    notes = ("3 processes", "what each process said was not saved", "")
    assert summary_of([changed("undecided", note=note) for note in notes], []).too_few == 1


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ({"bytes_stored": 400}, {"bytes_stored": 300}, ["a: bytes_stored was 400 and is 300"]),
        ({"bytes_stored": 0}, {"bytes_stored": 300}, ["a: bytes_stored was 0 and is 300"]),
        ({"bytes_stored": 300}, {"bytes_stored": 0}, ["a: bytes_stored was 300 and is 0"]),
        ({"bytes_stored": 300}, {"bytes_stored": 301}, []),
        ({"peak_bytes": None}, {"peak_bytes": 300}, []),
        ({"training_peak_bytes": 400}, {"training_peak_bytes": 300}, ["a: training_peak_bytes was 400 and is 300"]),
        ({"test_accuracy": 0.9}, {"test_accuracy": 0.905}, []),
        ({"test_accuracy": 0.8}, {"test_accuracy": 0.9}, ["a: test_accuracy was 0.800 and is 0.900"]),
    ],
)
def test_costs_that_rise_or_fall_are_told(old: dict[str, Any], new: dict[str, Any], told: list[str]) -> None:
    one = CaseChange("a", "same", case(**old), case(**new))
    assert summary_of([one], []).costs == told
    assert summary_of([one._replace(verdict="changed definition")], []).costs == []
