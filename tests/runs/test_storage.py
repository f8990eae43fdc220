"""Runs are saved whole or not at all."""

import json
import os
import random
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pytest_benchmark.storage.file import FileStorage

from bench.runs.files import as_json, write_whole
from bench.runs.reading import parse
from bench.runs.saved import Run
from bench.runs.storage import LOCK_SECONDS, RunStorage, save_numbered
from tests.helpers.damaged import CONTENT, is_sentence
from tests.helpers.saved import at, places, saved, written
from tests.helpers.savers import Logger, Saving

KILLS = int(os.environ.get("SPARSE_MODELS_KILLS", "30"))
LONG = written(saved(padding="x" * 1_000_000))  # takes a while to write
READS_ALL = os.geteuid() == 0  # as root does, whatever the permissions


def storage_in(path: Path) -> RunStorage:
    return RunStorage(path, Logger(), "machine", [])


@pytest.fixture(scope="module")
def saving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Saving]:
    content = tmp_path_factory.mktemp("saving") / "content"
    content.write_bytes(LONG)
    one = Saving(content)
    with one.parent:
        yield one


def left_aside(folder: Path) -> list[Path]:
    return list(folder.glob(".*.part"))


def test_a_process_killed_at_any_moment_leaves_no_cut_file_and_loses_none(tmp_path: Path, saving: Saving) -> None:
    chance, folder, seen = random.Random(0), tmp_path / "machine", dict[Path, int]()
    for kill in range(KILLS):
        process = saving.start(folder, f"kill{kill}")
        time.sleep(chance.uniform(0, 0.05))
        os.kill(process, signal.SIGKILL)
        assert saving.end(process) == -signal.SIGKILL
        for path in set(folder.glob("[0-9]*.json")) - seen.keys():
            assert path.read_bytes() == LONG
            seen[path] = path.stat().st_ino
        if (folder / "same.json").exists():
            assert json.loads((folder / "same.json").read_bytes()) == json.loads(LONG)
        assert {path: path.stat().st_ino for path in seen} == seen
    assert len(seen) >= KILLS // 3  # it was killed at work
    assert sorted(int(path.name[:4]) for path in seen) == list(range(1, len(seen) + 1))
    assert save_numbered(folder, "after", LONG).exists()  # no lock outlives its process


@pytest.mark.parametrize("processes", [2, 8])
def test_runs_saved_at_once_are_all_there_under_numbers_of_their_own(tmp_path: Path, saving: Saving, processes: int) -> None:
    folder, each = tmp_path / "machine", 6
    running = [saving.start(folder, f"p{number}", each) for number in range(processes)]
    assert [saving.end(process) for process in running] == [0] * processes
    paths = sorted(folder.glob("[0-9]*.json"))
    assert [int(path.name[:4]) for path in paths] == list(range(1, processes * each + 1))
    assert {path.name[5:] for path in paths} == {f"p{p}-{n}.json" for p in range(processes) for n in range(each)}
    assert {path.read_bytes() for path in paths} == {LONG}
    assert not left_aside(folder)


def test_what_killed_savers_had_begun_is_cleared_and_what_is_being_written_is_not(tmp_path: Path) -> None:
    old, fresh = tmp_path / ".0001_x.json.abc.part", tmp_path / ".0002_x.json.def.part"
    others = [tmp_path / name for name in (".run-1.jsonl", "0001_y.json", ".hidden.part")]
    for path in (old, fresh, *others):
        path.write_bytes(b"x")
    for path in (old, *others):
        os.utime(path, (time.time() - LOCK_SECONDS - 1,) * 2)
    save_numbered(tmp_path, "z", LONG)
    assert not old.exists()
    assert all(path.exists() for path in (fresh, *others))


def test_numbers_go_on_above_the_highest_whatever_is_missing_and_past_four_digits(tmp_path: Path) -> None:
    for name in ("0003_x.json", "9998_y.json", "0042_z.json", "x.json", "77_x.json", "9999_x.txt", "99990_x.part"):
        (tmp_path / name).write_bytes(b"before")
    names = [save_numbered(tmp_path, "run", CONTENT).name for _ in range(4)]
    assert names == ["9999_run.json", "10000_run.json", "10001_run.json", "10002_run.json"]
    assert (tmp_path / "9998_y.json").read_bytes() == b"before"


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        path = save_numbered(tmp_path, "run", CONTENT)
        assert os.umask(umask) == umask  # which is not changed either
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.parametrize("failing", ["fsync", "fchmod", "replace", "open"])
def test_a_full_disk_is_reported_and_leaves_what_was_there_and_nothing_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    storage = storage_in(tmp_path)
    storage.save(saved(), "first")
    storage.put(tmp_path / "same.json", {"old": True})

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    if failing == "replace":
        monkeypatch.setattr(Path, "replace", full)
    elif failing == "open":
        monkeypatch.setattr("tempfile.mkstemp", full)
    else:
        monkeypatch.setattr(os, failing, full)
    storage.save(saved(), "second")
    storage.put(tmp_path / "same.json", {"old": False})
    monkeypatch.undo()
    assert len(storage.failed) == 2
    assert all(line.startswith("the run was not saved ") and "No space left" in line for line in storage.failed)
    assert [path.name for path in storage.folder.glob("*.json")] == ["0001_first.json"]
    assert json.loads((tmp_path / "same.json").read_text()) == {"old": True}
    assert not left_aside(tmp_path)
    assert not left_aside(storage.folder)


def test_a_place_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    storage = storage_in(tmp_path / "file")
    storage.save(saved(), "run")
    storage.put(tmp_path / "no" / "run.json", saved())
    storage.put(tmp_path, saved())
    storage.save(saved(), "x" * 300)
    assert len(storage.failed) == 4
    assert all("\n" not in line for line in storage.failed)


@pytest.mark.skipif(READS_ALL, reason="root writes everywhere")
def test_a_folder_without_permission_is_reported(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    storage = storage_in(tmp_path)
    storage.save(saved(), "run")
    tmp_path.chmod(0o700)
    assert "Permission denied" in storage.failed[0]


def test_an_interrupted_write_leaves_nothing_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "run.json", CONTENT)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_file_is_written_to_and_stays_what_it_is() -> None:
    write_whole(Path(os.devnull), CONTENT)
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)


def test_figures_that_are_no_numbers_are_saved_as_null() -> None:
    assert json.loads(as_json({"a": float("nan"), "b": [float("inf"), (1.5, -float("inf"))], "c": {1: "x"}})) == {
        "a": None, "b": [None, [1.5, None]], "c": {"1": "x"},
    }  # fmt: skip


def figures(run: Run) -> dict[str, Any]:
    """All that a run says to six digits, by where it says it."""
    told = msgspec.to_builtins({name: case.row for name, case in run.cases.items()})
    told |= {f"{name} {field}": dict(getattr(case, field)) for name, case in run.cases.items() for field in case._fields[1:]}
    leaves = ((str(place), at(told, place)) for place in places(told))
    return {place: f"{one:.6g}" if isinstance(one, float) else one for place, one in leaves if not isinstance(one, dict | list)}


def test_what_is_saved_is_read_by_this_suite_and_by_pytest_benchmarks_own_storage(tmp_path: Path) -> None:
    storage = storage_in(tmp_path)
    storage.save(saved(), "run")
    [path] = storage.folder.glob("*.json")
    assert figures(parse("run", path.read_bytes())) == figures(parse("run", CONTENT))
    [(_, loaded)] = FileStorage(tmp_path, Logger(), default_machine_id="machine").load("0001")
    assert [one["fullname"] for one in loaded["benchmarks"]] == [one["fullname"] for one in saved()["benchmarks"]]
    assert all(one["stats"]["ops"] == 1.0 for one in loaded["benchmarks"])
    [(where, again)] = storage.load()
    assert (str(where), again["benchmarks"]) == ("machine/0001_run.json", loaded["benchmarks"])


def test_damaged_files_are_named_once_and_skipped(tmp_path: Path) -> None:
    storage = storage_in(tmp_path)
    storage.save(saved(), "good")
    stats = saved()
    stats["benchmarks"][0]["stats"] = {}
    zero = saved()
    zero["benchmarks"][0]["stats"] = zero["benchmarks"][0]["stats"] | {"mean": 0.0}
    ops = saved()
    ops["benchmarks"][0]["stats"] = ops["benchmarks"][0]["stats"] | {"ops": None}
    bad = {
        "cut": CONTENT[:-9],
        "null": b"null",
        "empty": b"",
        "deep": b"[" * 10**5,
        "stats": written(stats),
        "zero": written(zero),
        "ops": written(ops),
    }
    for number, (name, content) in enumerate(bad.items(), 2):
        (storage.folder / f"{number:04}_{name}.json").write_bytes(content)
    os.mkfifo(storage.folder / "0009_pipe.json")
    for _ in range(2):
        assert [str(path) for path, _ in storage.load()] == ["machine/0001_good.json"]
    assert len(storage.notes) == len(bad) + 1
    assert all(map(is_sentence, storage.notes))
    assert any(note.startswith("skipped machine/0002_cut.json: ") for note in storage.notes)


def test_a_run_is_saved_compact_and_whole_where_other_programs_read_it(tmp_path: Path) -> None:
    storage = storage_in(tmp_path)
    storage.save(saved(), "run")
    storage.put(tmp_path / "whole.json", saved())
    [path] = storage.folder.glob("*.json")
    assert {"rows", "process_figures", "pairs"} <= json.loads(path.read_bytes()).keys()
    assert json.loads((tmp_path / "whole.json").read_bytes()) == json.loads(written(saved()))
