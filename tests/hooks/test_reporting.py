"""What `--report` writes once a run is measured, with drawn figures in the place of measured ones."""

from pathlib import Path

import pytest

from bench.runs.locate import read_runs
from tests.hooks.test_last_lines import run


def test_the_last_line_says_where_the_report_of_the_saved_run_lies(tmp_path: Path) -> None:
    done = run(tmp_path, "--benchmark-autosave", "--report", csr=2.0)
    [page] = tmp_path.glob("runs/*/report.html")
    *_, told, last = done.stdout.strip().splitlines()
    assert told == f"The report: {page.relative_to(tmp_path)}"
    assert "passed" in last
    [saved] = page.parent.glob("0001_*.json")
    text = page.read_text()
    assert saved.name in text
    assert ".venv/bin/pytest bench --benchmark-autosave --op forward" in text
    assert "--report" not in text.partition('id="again"')[2].partition("</section>")[0]
    [only], _ = read_runs([str(saved)])
    assert only.facts["run"]["asked"][:2] == ["--op", "forward"]


def test_a_run_that_is_not_saved_has_a_report_too_and_stands_beside_those_that_are(tmp_path: Path) -> None:
    run(tmp_path, "--benchmark-save=first", csr=2.0)
    done = run(tmp_path, "--report", "look.md", csr=1.0)
    assert done.stdout.strip().splitlines()[-2] == "The report: look.md"
    text = (tmp_path / "look.md").read_text()
    assert "this run, which is not saved" in text
    assert "0001_first" in text


def test_a_run_in_which_all_failed_has_a_page_that_says_why(tmp_path: Path) -> None:
    run(tmp_path, "--benchmark-save=first", csr=2.0)
    done = run(tmp_path, "--benchmark-autosave", "--report", "all.html", failing=1.0)
    assert done.returncode == 1
    text = (tmp_path / "all.html").read_text()
    assert "there is no answer in it" in text
    assert text.count("<dt><code>") == text.count("a planted failure") > 0


@pytest.mark.parametrize("asked", ["report.pdf", "nowhere/report.html"])
def test_a_report_that_cannot_be_written_ends_the_run_before_anything_is_measured(tmp_path: Path, asked: str) -> None:
    done = run(tmp_path, f"--report={asked}", csr=2.0)
    assert done.returncode == 4
    assert "--report: expected" in done.stderr
    assert "the short answer" not in done.stdout
