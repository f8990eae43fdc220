"""Runs side by side: which are shown, what each says of a case, and where they agree."""

from typing import Any

import pytest

from bench.comparisons.machines import machines_of, sides
from bench.runs.saved import Run
from bench.tables.machines import SIDE_BY_SIDE, lines
from tests.helpers.rows import saved_row, saved_run


def run(machine: str, day: int = 1, rows: dict[str, Any] | None = None, **fields: Any) -> Run:
    rows = {"a": saved_row()} if rows is None else rows
    return saved_run(rows, name=f"{machine}{day}", time=f"2026-01-{day:02}", machine=machine, **fields)


def with_verdicts(*verdicts: str) -> list[Run]:
    return [run(f"m{number}", rows={"a": saved_row(verdict=verdict)}) for number, verdict in enumerate(verdicts)]


def test_of_each_machine_the_newest_run_stands_and_the_older_are_counted() -> None:
    runs = [run("b", 2), run("a", 3), run("a", 1), run("a", 2)]
    assert [(side.letter, side.run.name, side.others) for side in sides(runs)] == [("A", "a3", 2), ("B", "b2", 0)]
    told = list(lines(machines_of(runs)))
    assert told[0].endswith("; 2 older of this machine left out, see history")
    assert "left out" not in told[1]


def test_runs_of_one_machine_stand_all_oldest_first() -> None:
    assert [(side.run.name, side.others) for side in sides([run("a", 2), run("a", 1)])] == [("a1", 0), ("a2", 0)]
    assert [side.letter for side in sides([run("a", day) for day in range(1, 29)])][24:] == ["Y", "Z", "A1", "B1"]


@pytest.mark.parametrize(
    ("verdicts", "answer"),
    [
        (("faster", "faster"), "agree: faster"),
        (("faster", "undecided"), "undecided"),
        (("undecided", "undecided"), "undecided"),
        (("faster", "slower"), "differ"),
        (("faster", "slower", "undecided"), "differ"),
    ],
)
def test_machines_agree_where_all_answer_alike(verdicts: tuple[str, ...], answer: str) -> None:
    found = machines_of(with_verdicts(*verdicts))
    assert [line.answer for line in found.lines] == [answer]
    assert found.answers == {answer.partition(":")[0]: 1}


def test_only_cases_of_more_than_one_machine_have_a_line() -> None:
    found = machines_of([run("a"), run("b", rows={"a": saved_row(), "b": saved_row(layer="tiled")})])
    assert [line.what[:2] for line in found.lines] == [("forward", "csr")]
    assert found.known == 2
    assert found.fields == ["op", "layer"]


def test_threads_tell_cases_apart_where_a_run_has_several() -> None:
    several = run("a", rows={f"{threads}": saved_row(threads=threads) for threads in (1, 2)})
    assert len(machines_of([several, run("b", rows={"x": saved_row(threads=1)})]).lines) == 1
    assert machines_of([several, several._replace(machine="b")]).fields == ["op", "layer", "threads"]
    [line] = machines_of([run(name, rows={"x": saved_row(threads=many)}) for name, many in (("a", 2), ("b", 64))]).lines
    assert set(line.cells) == {"A", "B"}


def test_a_bound_is_the_kernels_own_or_that_of_dense_products() -> None:
    rows = {
        "own": saved_row(bound_fraction=0.25),
        "dense": saved_row(layer="tiled", flops_executed=1e8, seconds=1e-2, epochs=None),
    }
    found = machines_of([run(name, rows=rows, dense_gflops={"cpu": 40.0}) for name in ("a", "b")])
    assert [line.cells["A"].bound_fraction for line in found.lines] == [0.25, pytest.approx(0.25)]
    [line, _] = machines_of([run(name, rows=rows, dense_gflops={}) for name in ("a", "b")]).lines
    assert line.cells["B"].bound_fraction == 0.25
    assert (
        machines_of([run(name, rows=rows, dense_gflops={}) for name in ("a", "b")]).lines[1].cells["A"].bound_fraction is None
    )


def test_of_many_machines_the_lowest_and_the_highest_are_told() -> None:
    levels = [3.0, 1.0, 2.0, 5.0, 4.0, 2.5, 3.5]
    found = machines_of([run(f"m{n}", rows={"a": saved_row(speedups=[level] * 8)}) for n, level in enumerate(levels)])
    assert len(levels) > SIDE_BY_SIDE
    assert found.lines[0].ordered == ["B", "C", "F", "A", "G", "E", "D"]
    told = "\n".join(lines(found))
    [line] = [line for line in told.splitlines() if "5.00 [" in line]
    assert line.index("B 1.00") < line.index("3.00") < line.index("D 5.00")
    assert "and 5 that are nowhere the lowest or the highest" in told


@pytest.mark.parametrize(("second", "differ"), [(1.0, False), (1.04, False), (1.5, True)])
def test_break_evens_differ_where_their_intervals_are_apart(second: float, differ: bool) -> None:
    def curve(machine: str, level: float) -> Run:
        return run(machine, rows={
            f"{sparsity}": saved_row(sparsity=sparsity, speedups=[level * at * (1 + n / 100) for n in range(8)])
            for sparsity, at in ((0.5, 0.5), (0.8, 0.9), (0.9, 1.6))
        })  # fmt: skip

    found = machines_of([curve("a", 1.0), curve("b", second)])
    assert [one.differ for one in found.break_evens] == [differ]
    assert list(lines(found))[-2].split()[-1] == ("differ" if differ else "overlap")


def test_break_evens_are_by_number_of_threads_where_a_run_has_several() -> None:
    def cases(*threads: int) -> dict[str, Any]:
        return {
            f"{count} {sparsity}": saved_row(threads=count, sparsity=sparsity, speedups=[level] * 8)
            for count in threads
            for sparsity, level in ((0.5, 0.5 * count), (0.9, 4.0))
        }

    for order in ((1, 2), (2, 1)):
        found = machines_of([run("a", rows=cases(*order)), run("b", rows=cases(1))]).break_evens
        assert [(one.cells["A"] == one.cells["B"], one.differ) for one in found] == [(True, False)]
    found = machines_of([run("a", rows=cases(1)), run("b", rows=cases(2))]).break_evens
    assert len(found) == 1  # as many threads as each machine was asked for
