"""What cannot come of a command is told before anything is measured, in one sentence."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.helpers.in_process import SMALL, Done, run

# Nothing is measured here; collecting garbage would take most of each run.
FORWARD = [*SMALL, "--op", "forward", "--layer", "csr", "-p", "no:unraisableexception"]


def refused(*arguments: str, cwd: Path) -> str:
    """Return the one line that a command is refused with."""
    done: Done = run(*FORWARD, *arguments, cwd=cwd)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, done.stdout
    assert "process 1" not in done.stdout
    [line] = [line for line in (done.stderr + done.stdout).splitlines() if "expected" in line]
    return line


def test_a_folder_is_no_run_to_compare_with(tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    told = refused("--benchmark-compare", "bench", cwd=tmp_path)
    assert "--benchmark-compare: expected a saved run, got 'bench', a folder; name one, as in" in told
    assert "expected a saved run, got ''; name one" in refused("--benchmark-compare=", cwd=tmp_path)


def test_a_file_that_could_not_be_written_is_told(tmp_path: Path) -> None:
    told = refused("--benchmark-json=missing/folder/x.json", cwd=tmp_path)
    assert "--benchmark-json: expected a folder that can be written, got missing/folder: No such file" in told


@pytest.mark.skipif(find_spec("pygal") is not None, reason="what draws histograms is installed")
def test_a_histogram_that_could_not_be_drawn_is_told(tmp_path: Path) -> None:
    told = refused("--benchmark-histogram=drawn", cwd=tmp_path)
    assert "--benchmark-histogram: expected pygal, which draws it, got none; pip install" in told


def test_a_storage_that_could_not_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told = refused("--benchmark-autosave", "--benchmark-storage=file/runs", cwd=tmp_path)
    assert "--benchmark-storage: expected a folder that can be made, got " in told
    told = refused("--benchmark-autosave", "--benchmark-storage=nothing://runs", cwd=tmp_path)
    assert "--benchmark-storage: expected a storage that can be used, got nothing://runs" in told


@pytest.mark.skipif(find_spec("elasticsearch") is not None, reason="what reaches such a server is installed")
def test_a_server_that_could_not_be_reached_is_told(tmp_path: Path) -> None:
    told = refused("--benchmark-autosave", "--benchmark-storage=elasticsearch+http://nowhere/runs", cwd=tmp_path)
    assert "--benchmark-storage: expected the package elasticsearch, got none; pip install" in told


def test_nothing_that_can_run_is_no_success(tmp_path: Path) -> None:
    told = refused("--dtype", "bfloat16", "--layer", "csr,block16", cwd=tmp_path)
    assert "expected a case that can run here, got none of 2: csr runs on float32, float64, not on bfloat16; block16" in told


def test_why_some_were_skipped_is_said(tmp_path: Path) -> None:
    done = run(*FORWARD, "--dtype", "bfloat16", "--layer", "csr,masked", "--benchmark-disable", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.count("skipped: csr runs on float32, float64, not on bfloat16") == 1


def test_what_is_not_for_trainings_is_said(tmp_path: Path) -> None:
    asked = ["--op", "forward,train", "--data", "digits", "--seeds", "1", "-k", "bench_forward"]
    done = run(*SMALL, *asked, "--benchmark-disable", cwd=tmp_path)
    assert done.returncode == 0
    told = "--shape: expected the first and last sizes of a data set to train on (64 and 10 for digits), got 8x8b4"
    assert f"not for train: {told}; change them, or choose --data" in done.stdout
