"""Saved runs compared from the command line: what cannot be read is no comparison, and a limit fails a build."""

from pathlib import Path

import pytest

from bench.__main__ import main
from tests.helpers.damaged import CONTENT
from tests.helpers.saved import row, rows, saved, written

NAME = next(iter(rows()))


def run_of(folder: Path, number: int, level: float) -> str:
    """Save a run whose first case has this speed-up in each of eight processes, and return where."""
    figures = [level + process / 1000 for process in range(8)]
    case = row(
        speedup=level, speedup_low=level, speedup_high=figures[-1], process_speedups=figures, process_numbers=[*range(8)],
        process_seconds=[1e-3] * 8, process_dense_seconds=[figure * 1e-3 for figure in figures],
    )  # fmt: skip
    path = folder / f"{number:04}_run.json"
    path.write_bytes(written(saved({NAME: case}, datetime=f"2026-01-0{number}T00:00:00+00:00")))
    return str(path)


def test_a_slower_case_fails_where_it_is_asked_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = run_of(tmp_path, 1, 2.0), run_of(tmp_path, 2, 1.0)
    assert main(["compare", old, new]) == 0
    assert main(["compare", old, new, "--fail-slower", "10%"]) == 1
    assert f"{NAME}: slower by 100%, 10% allowed" in capsys.readouterr().out
    assert main(["compare", old, new, "--fail-slower", "200%"]) == 0


@pytest.mark.parametrize("runs", [1, 3])
def test_a_limit_takes_two_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str], runs: int) -> None:
    paths = [run_of(tmp_path, number + 1, 2.0) for number in range(runs)]
    with pytest.raises(SystemExit, match="2"):
        main(["compare", *paths, "--fail-slower", "10%"])
    assert f"--fail-slower: expected two runs, before and now, got {runs}" in capsys.readouterr().err


def test_a_run_asked_for_by_name_that_is_cut_is_no_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, cut = run_of(tmp_path, 1, 2.0), tmp_path / "0002_cut.json"
    cut.write_bytes(CONTENT[:-9])
    with pytest.raises(SystemExit, match="2"):
        main(["compare", whole, str(cut)])
    assert f"expected a saved run, got none of {str(cut)!r} that can be read\nskipped {cut}: " in capsys.readouterr().err
    assert main(["compare", str(tmp_path)]) == 0  # of a folder, what can be read
