"""The end of the screen, with drawn figures in the place of measured ones."""

import json
import re
from pathlib import Path

import pytest

from tests.helpers import in_process
from tests.helpers.fake_engine import replace_engine
from tests.helpers.in_process import Done

HEADING, SHORT = "do sparse networks save compute?", "the short answer"


def run(folder: Path, *arguments: str, **levels: float) -> Done:
    """Run the forward pass of all layers, which have these levels, in eight processes."""
    (folder / "levels.json").write_text(json.dumps(levels))
    asked = [*in_process.SMALL, "--processes", "8", "--op", "forward", "-p", "no:unraisableexception"]
    with pytest.MonkeyPatch.context() as patch:
        replace_engine(patch)
        return in_process.run(*asked, f"--benchmark-storage={folder / 'runs'}", *arguments, cwd=folder)


def test_the_short_answer_is_below_all_else_and_its_sentence_above_the_tables(tmp_path: Path) -> None:
    run(tmp_path, "--benchmark-save=first", csr=2.0, tiled=3.0)
    out = run(tmp_path, "--benchmark-compare=0001", "--fail-slower", "10%", csr=2.0, tiled=2.0).stdout
    headings = [HEADING, "Speed-up over dense", "what changed?", "the build fails", SHORT]
    places = [out.index(heading) for heading in headings]
    assert places == sorted(places)
    *end, last = out[out.index(SHORT) :].splitlines()[1:]
    assert 1 <= len(end) <= 12
    assert re.search(r"\d passed", last)
    assert "sparsity 0.5 pays in forward" in end[0]
    assert out.splitlines()[out.splitlines().index(next(line for line in out.splitlines() if HEADING in line)) + 1] == end[0]


def test_the_answer_alone_has_no_tables_and_no_progress(tmp_path: Path) -> None:
    done = run(tmp_path, "--answer-only", "--benchmark-autosave", tiled=3.0)
    assert done.returncode == 0, done.stdout + done.stderr
    heading, *told, last = done.stdout.strip().splitlines()
    assert SHORT in heading
    assert len(told) <= 12
    assert "passed" in last
    assert len(list(tmp_path.glob("runs/*/*.json"))) == 1


def test_the_answer_alone_still_tells_what_fails_and_what_is_skipped(tmp_path: Path) -> None:
    run(tmp_path, "--benchmark-save=first", csr=2.0)
    done = run(tmp_path, "--answer-only", "--benchmark-compare=0001", "--fail-slower", "10%", "--dtype", "float32", csr=1.0)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "slower by 100%, 10% allowed" in done.stdout
    assert HEADING not in done.stdout


def test_choosing_variants_counts_as_building(tmp_path: Path) -> None:
    run(tmp_path, "--benchmark-autosave", "--layer", "tiled")
    [saved] = tmp_path.glob("runs/*/*.json")
    told = json.loads(saved.read_text())["machine"]["run"]
    assert told["spent_seconds"]["building"] > 0  # of which the drawn engine tells nothing
    assert told["turns"][0]["building"] == pytest.approx(told["spent_seconds"]["building"])
    assert told["saved_up_seconds"] == 0


@pytest.mark.parametrize(("color", "has"), [("yes", True), ("no", False), ("auto", False)])
def test_verdicts_are_coloured_where_pytest_is(tmp_path: Path, color: str, has: bool) -> None:
    out = run(tmp_path, f"--color={color}", tiled=3.0).stdout
    assert ("\x1b[32m3.00" in out) == has
    assert ("\x1b" in out) == has
