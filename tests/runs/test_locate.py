"""Saved runs are found by whatever a user calls them."""

from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from bench.machine.facts import facts
from bench.machine.fingerprint import fingerprint
from bench.runs.files import MAX_BYTES
from bench.runs.locate import own_folders, read_runs
from tests.helpers.damaged import CONTENT, why
from tests.helpers.saved import saved, written


def names(*asked: str, storage: Path | str = "nowhere") -> list[str]:
    runs, skipped = read_runs(asked, str(storage))
    assert not skipped
    return [Path(run.name).name for run in runs]


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """A storage of two machines with three runs, of which the last is the oldest."""
    for place, day in {"a/0001_x": 2, "a/0002_y": 3, "b/0001_z": 1}.items():
        path = tmp_path / "storage" / f"{place}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(written(saved(datetime=f"2026-01-0{day}")))
    return tmp_path / "storage"


def test_runs_are_found_by_path_number_glob_and_folder_oldest_first(storage: Path) -> None:
    path = f"{storage}/a/0002_y.json"
    assert names(path) == names(f"file://{path}") == names("2", storage=storage) == names("0002", storage=storage)
    assert names("1", storage=storage) == ["0001_z.json", "0001_x.json"]
    in_order = ["0001_z.json", "0001_x.json", "0002_y.json"]
    assert names(str(storage)) == names("000*", storage=storage) == names(f"{storage}/**/*.json") == in_order
    assert names("b/*", storage=storage) == names("0001_z", storage=storage) == ["0001_z.json"]
    assert names("2", "0002", "0002_y", path, storage=storage) == ["0002_y.json"]  # and not missed the second time


def test_a_number_is_that_of_this_machines_run_where_it_has_one(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.runs.locate.own_folders", lambda: ["b", "a GPU's"])
    assert names("1", storage=storage) == names("0001", storage=storage) == ["0001_z.json"]
    assert names("2", storage=storage) == ["0002_y.json"]  # which only another machine has
    assert names("1", "2", storage=storage) == ["0001_z.json", "0001_x.json", "0002_y.json"]  # not one of each
    assert names("0001*", storage=storage) == ["0001_z.json", "0001_x.json"]  # a glob is all of it


def test_this_machines_folder_is_that_in_which_its_runs_are_saved() -> None:
    assert fingerprint(facts(["cpu"])) in own_folders()


def test_the_same_is_found_on_a_remote_storage(storage: Path) -> None:
    files = fsspec.filesystem("memory")
    for path in storage.rglob("*.json"):
        files.pipe(f"/runs/{path.relative_to(storage)}", path.read_bytes())
    files.pipe("/runs/a/0003_cut.json", CONTENT[:-1])
    files.pipe("/runs/a/note.txt", b"")
    try:
        in_order = ["0001_z.json", "0001_x.json", "0002_y.json"]
        assert names("memory://runs/a/0002_y.json") == names("2", storage="memory://runs") == ["0002_y.json"]
        assert names("1", storage="memory://runs") == names("memory://runs/*/0001*.json") == in_order[:2]
        runs, [skipped] = read_runs(["memory://runs"])
        assert [run.name for run in runs] == [f"memory:///runs/{place}.json" for place in ("b/0001_z", "a/0001_x", "a/0002_y")]
        assert skipped.startswith("skipped memory:///runs/a/0003_cut.json: ")
        assert names(str(storage), "2", storage="memory://runs") == [*in_order, "0002_y.json"]  # local ones stay local
        assert "found none" in why("memory://runs/7*")
        assert "found none" in why("7", storage="memory://runs")
    finally:
        files.rm("/runs", recursive=True)


def test_a_storage_that_cannot_be_read_is_told_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    assert why("nosuch://x") == "expected a storage that can be used, got nosuch://x: Protocol not known: nosuch"
    assert "one" in why("1", storage="nosuch://one")

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("\x1b[31mthe network\nis gone")

    monkeypatch.setattr(MemoryFileSystem, "isfile", fails)
    assert why("memory://x") == "expected a storage that can be used, got memory://x: \\x1b[31mthe network"


def test_a_remote_file_that_fails_is_skipped_and_a_large_one_is_not_fetched_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def ranges(_: Any, paths: list[str], starts: list[int], ends: list[int], **__: Any) -> list[Any]:
        assert all(end - start == MAX_BYTES + 1 for start, end in zip(starts, ends, strict=True))
        return [CONTENT, PermissionError("no\nno"), b" " * (MAX_BYTES + 1), TimeoutError()]

    monkeypatch.setattr(MemoryFileSystem, "find", lambda *_: ["a.json", "b.json", "c.json", "d.json", "e.txt"])
    monkeypatch.setattr(MemoryFileSystem, "cat_ranges", ranges)
    runs, skipped = read_runs(["memory://runs"])
    assert [run.name for run in runs] == ["memory://a.json"]
    assert [line.partition(": ")[2] for line in skipped] == ["no", "more than 64 MiB", "TimeoutError"]


@pytest.mark.parametrize(
    "asked",
    [
        "7",
        "",
        "no*",
        "no/",
        "[",
        "a**b",
        "x" * 5000,
        "x/" * 3000,
        "\0",
        "\ud800",
        "\x1b[31m",
        "://",
        "file://no",
        "9" * 99,
        "/no/*",
    ],
)
def test_what_matches_nothing_or_is_no_name_at_all_is_told_in_one_sentence(asked: str, storage: Path) -> None:
    assert why(asked, storage=storage).startswith("expected a saved run by path, number or glob, got ")


def test_a_gpus_runs_are_this_machines_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.runs.locate.facts", lambda devices: {"of": devices})
    monkeypatch.setattr("bench.runs.locate.fingerprint", lambda told: f"machine of {told['of'][0]}")
    assert own_folders.__wrapped__() == ["machine of cpu", "machine of cuda"]


def test_a_number_that_is_the_name_of_a_folder_is_the_folder(
    storage: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "own.json").write_bytes(CONTENT)
    monkeypatch.chdir(tmp_path)
    assert names("1", storage=storage) == ["own.json"]


def test_a_run_asked_for_by_number_is_read_once(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, reads = fsspec.filesystem("memory"), list[str]()
    files.pipe("/once/b/0001_z.json", (storage / "b/0001_z.json").read_bytes())
    ranges = MemoryFileSystem.cat_ranges

    def counted(self: Any, paths: list[str], *how: Any, **more: Any) -> Any:
        reads.extend(paths)
        return ranges(self, paths, *how, **more)

    monkeypatch.setattr("bench.runs.locate.own_folders", lambda: ["b"])
    monkeypatch.setattr(MemoryFileSystem, "cat_ranges", counted)
    assert names("1", storage="memory://once") == ["0001_z.json"]
    assert reads == ["/once/b/0001_z.json"]
    files.rm("/once", recursive=True)
