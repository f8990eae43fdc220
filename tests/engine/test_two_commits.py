"""A run that was saved counts, whether or not its tests passed or it was interrupted."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.engine.two_commits import _Side
from sparse_models.errors import InputError


def ended(folder: Path, code: int) -> _Side:
    (folder / "base" / "machine").mkdir(parents=True)
    (folder / "base" / "machine" / "0001_run.json").write_bytes(b"the run")
    (folder / "base" / "machine" / "0001_other.json").write_bytes(b"another")
    (folder / "log").write_text("why\n")
    side = _Side.__new__(_Side)
    side.__dict__ |= {"name": "base", "process": SimpleNamespace(returncode=code)}
    side.__dict__ |= {"log": folder / "log", "_storage": folder / "base"}
    return side


@pytest.mark.parametrize("code", [0, 1, 2])
def test_a_run_that_was_saved_is_read_whatever_became_of_its_tests(tmp_path: Path, code: int) -> None:
    assert ended(tmp_path, code).result() == b"the run"


@pytest.mark.parametrize("code", [3, 4, -9])
def test_a_run_that_broke_is_told_with_its_last_lines(tmp_path: Path, code: int) -> None:
    with pytest.raises(InputError, match=rf"base: expected a saved run of it, got none \(exit code {code}\):\n  why"):
        ended(tmp_path, code).result()
