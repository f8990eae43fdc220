"""A storage that is no folder: here fsspec's own in memory, in its place any that fsspec knows."""

import json
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from bench.runs.files import MAX_BYTES
from bench.runs.reading import parse
from bench.runs.remote import RemoteStorage, find, is_remote, read
from sparse_models.errors import InputError
from tests.helpers.saved import saved
from tests.helpers.savers import Logger
from tests.hooks.test_session import Suite

URL = "memory://bucket/runs"


@pytest.fixture
def suite(tmp_path: Path) -> Iterator[Suite]:
    """A suite that saves in memory."""
    made = Suite(tmp_path)
    made.storage = URL  # type: ignore[assignment]  # a path elsewhere
    yield made
    fsspec.filesystem("memory").store.clear()


def test_runs_are_saved_and_compared_there(suite: Suite) -> None:
    for _ in range(2):
        done = suite.run("--benchmark-save=node", "--layer", "csr", csr=2.0)
        assert done.returncode == 0, done.stdout + done.stderr
    urls = find(URL)
    runs = [parse(url, content) for url, content in read(urls) if isinstance(content, bytes)]
    for number, (url, run) in enumerate(zip(urls, runs, strict=True), 1):
        assert f"/bucket/runs/{run.machine}/000{number}_node-" in url
    assert len({run.machine for run in runs}) == 1
    assert len(urls) == 2
    for asked in ("--benchmark-compare", "--benchmark-compare=0001", f"--benchmark-compare={urls[0]}"):
        done = suite.run(asked, "--fail-slower", "10%", "--layer", "csr", csr=1.6)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "csr: 1 of 1 cases slower, by 25% (median)" in done.stdout
        assert "(NOW)" in done.stdout  # pytest-benchmark's own comparison stands
    assert [path.name for path in suite.folder.glob("**/*.json")] == ["levels.json"]  # which says what is measured


def test_numbers_go_on_past_four_digits(suite: Suite) -> None:
    files = fsspec.filesystem("memory")
    for name in ("0007_x.json", "12345_x.json", "x_99999.json"):
        files.pipe_file(f"/bucket/runs/machine/{name}", b"{}")
    storage = RemoteStorage(str(suite.storage), Logger(), "machine", [])
    storage.save({}, "y")
    assert not storage.failed
    assert len(find(f"{URL}/machine", "12346_y-")) == 1


def test_a_storage_that_cannot_be_used_is_told(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    suite.storage = "nosuch://bucket/runs"  # type: ignore[assignment]
    done = suite.run("--benchmark-compare")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, done.stdout + done.stderr
    assert "ERROR: --benchmark-compare: expected a storage that can be used, got nosuch://bucket/runs" in done.stderr
    done = suite.run("--benchmark-save=node", "--layer", "csr")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, done.stdout + done.stderr
    assert "ERROR: --benchmark-storage: expected a storage that can be used, got nosuch://bucket/runs" in done.stderr
    monkeypatch.setattr(RemoteStorage, "check", lambda _: None)  # as where it is lost while the run is measured
    done = suite.run("--benchmark-save=node", "--layer", "csr")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "the run was not saved: expected a storage that can be used" in done.stdout
    assert "--resume goes on with it" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_no_more_of_a_file_is_read_than_shows_that_it_is_too_large(suite: Suite) -> None:
    files = fsspec.filesystem("memory")
    files.pipe_file("/bucket/runs/large.json", b"0" * (MAX_BYTES + 2**20))
    [(url, content)] = read(find(f"{URL}/large.json"))
    assert len(content) == MAX_BYTES + 1
    assert isinstance(content, bytes)
    with pytest.raises(InputError, match="more than 64 MiB"):
        parse(url, content)
    assert suite.folder


@pytest.mark.parametrize(("place", "remote"), [("s3://b", True), ("file:///x", False), ("runs", False), ("a/b", False)])
def test_a_url_is_remote_unless_it_is_a_files(place: str, remote: bool) -> None:
    assert is_remote(place) == remote


def test_what_is_saved_is_compact(suite: Suite) -> None:
    RemoteStorage(str(suite.storage), Logger(), "machine", []).save(saved(), "y")
    [(_, content)] = read(find(URL))
    assert isinstance(content, bytes)
    assert {"rows", "process_figures", "pairs"} <= json.loads(content).keys()
