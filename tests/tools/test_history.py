"""`python -m bench history` as a user meets it, on runs drawn as in test_history."""

import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fsspec
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.__main__ import main
from bench.comparisons.change_points import RUNS_NEEDED
from bench.runs import accepted
from bench.runs.accepted import Accepted
from bench.runs.saved import Run
from sparse_models.errors import InputError
from tests.comparisons.test_history import CASE, series, stepping

FACTS: dict[str, Any] = {"cpu": {"name": "zen", "usable_cores": 2}, "versions": {"python": "3.11.2"}, "bounds": {}}


def saved(storage: Path, runs: Sequence[Run], folder: str = "zen", **cpu: Any) -> None:
    """Put runs where they are looked for."""
    (storage / folder).mkdir(parents=True, exist_ok=True)
    for one in runs:
        content = {
            "benchmarks": [
                {"fullname": name, "extra_info": {"schema": 5, **msgspec.structs.asdict(case.row)}}
                for name, case in one.cases.items()
            ],
            "datetime": one.time,
            "commit_info": {"id": one.commit, "dirty": one.is_dirty},
            "machine": FACTS | {"cpu": {**FACTS["cpu"], **cpu}},
        }
        (storage / folder / one.name).write_bytes(msgspec.json.encode(content))


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """Twenty runs: csr becomes slower at the eleventh, tiled faster at the sixth, dense stays, and set is new."""
    draw = random.Random(10)
    runs = series(draw, 20, stepping(10, 1 / 1.3), noise=0.01)
    tiled = series(draw, 20, stepping(5, 1.3), noise=0.01)
    calm = series(draw, 20, noise=0.01)
    for number, one in enumerate(runs):
        one.cases["bench/bench_layer.py::bench_forward[tiled-0.9]"] = tiled[number].cases[CASE]
        one.cases["bench/bench_layer.py::bench_forward[dense-0]"] = calm[number].cases[CASE]
        if number > 16:
            one.cases["bench/bench_update.py::bench_update[set-0.9]"] = calm[number].cases[CASE]
    saved(tmp_path, runs)
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], storage: Path | str, *arguments: str, code: int = 0) -> list[str]:
    """What the tool says."""
    try:
        ended = main(["history", "--storage", str(storage), *arguments])
    except SystemExit as exit_of_parser:
        ended = int(str(exit_of_parser.code))
    out = capsys.readouterr()
    assert ended == code
    return (out.err if code == 2 else out.out).splitlines()


def test_steps_of_all_cases(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(capsys, storage)
    assert lines[0].startswith("zen-2cores-")
    assert lines[0].endswith(": 20 runs, 2026-01-01 to 2026-01-20")
    cases = [line for line in lines if "[csr" in line or "[tiled" in line]
    statuses = [line.split()[-1] for line in lines if line.endswith(("slower", "faster"))]
    assert list(zip(cases, statuses, strict=True)) == [("forward[csr-0.9]", "slower"), ("forward[tiled-0.9]", "faster")]
    assert f"{storage}/zen/0011_run.json (000aabcde, 2026-01-11 12:00)" in "\n".join(lines)
    assert lines[-1] == f"1 cases without a step, 1 with fewer than the {RUNS_NEEDED} runs that a step takes"


def test_a_case_run_by_run(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for pattern in ("[csr", "forward[csr*", "*csr-0.9]", "bench_layer.py::bench_forward[csr-0"):
        lines = told(capsys, storage, pattern)
        assert lines[2] == "forward[csr-0.9]"
        assert set(lines[3]) <= set("▁▂▃▄▅▆▇█")
        assert len(lines[3]) == 20
        rows = [line for line in lines if "_run.json" in line]
        assert ["slower" in line for line in rows] == [number == 10 for number in range(20)]
        assert "1 ms" in rows[0]
    for pattern in ("forward[c", "forward*"):
        assert sum("_run.json" in line for line in told(capsys, storage, pattern)) == (20 if "*" not in pattern else 60)


def test_no_blocks_where_they_cannot_be_written(
    storage: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    monkeypatch.setattr("bench.__main__.tell", written.append)
    monkeypatch.setattr(sys, "stdout", type("Narrow", (), {"encoding": "latin-1"})())
    assert main(["history", "--storage", str(storage), "[csr"]) == 0
    assert not set("".join(written)) & set("▁▂▃▄▅▆▇█")
    assert any("slower" in line for line in written)


@pytest.mark.parametrize("named", ["11", "0011", "0011_run", "0011_run.json", "000aabc"])
def test_an_accepted_step_fails_nothing(storage: Path, capsys: pytest.CaptureFixture[str], named: str) -> None:
    lines = told(capsys, storage, "--fail", code=1)
    assert lines[-1].startswith(f"{CASE}: slower from {storage}/zen/0011_run.json")
    assert not any("tiled" in line for line in lines[-1:])
    assert told(capsys, storage, "[csr", "--accept", named, "exact masks [now]")[0].startswith(f"accepted: {CASE}, slower from")
    lines = told(capsys, storage, "--fail")
    assert sum("accepted: exact masks [now]" in line for line in lines) == 1
    assert not any("accepted.json" in line for line in lines)
    assert "accepted: exact masks [now]" in "\n".join(told(capsys, storage, "csr", "--fail"))
    [entry] = msgspec.json.decode((storage / "accepted.json").read_bytes())
    assert (entry["case"], entry["commit"], entry["run_time"]) == (CASE, "000aabcdef0123", "2026-01-11T12:00:00")


def test_a_step_that_was_undone_fails_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path, series(random.Random(4), 24, lambda number: 1.5 if 8 <= number < 16 else 2.0, noise=0.01))
    lines = told(capsys, tmp_path, "--fail")
    assert sum("slower, undone since" in line for line in lines) == 1
    assert sum("faster, undone since" in line for line in lines) == 0


def test_what_cannot_be_accepted_is_told(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, sentence in (
        (("csr", "--accept", "12", "why"), "expected a run at which a case has a step, got '12'; these cases have steps at "),
        (("dense", "--accept", "11", "why"), "these cases have steps at no run"),
        (("--accept", "11", "why"), "expected a case whose step to accept, got none"),
        (("csr", "--accept", "000", "why"), "expected a run at which a case has a step, got '000'"),
        (("csr", "--accept", "11", " "), "expected a reason of 1 to 300 characters, got 0"),
    ):
        [line] = told(capsys, storage, *arguments, code=2)
        assert sentence in line
    assert not (storage / "accepted.json").exists()


@pytest.mark.parametrize("content", [b"", b"{}", b'[{"case": "x"}]', b'[{"case": 1}', b"\xff", b"[" * 100_000])
def test_a_damaged_list_is_one_sentence(storage: Path, capsys: pytest.CaptureFixture[str], content: bytes) -> None:
    (storage / "accepted.json").write_bytes(content)
    [line] = told(capsys, storage, code=2)
    assert "expected a list of accepted steps, got " in line


texts = st.text("abc./:[] -", min_size=1, max_size=20)
entries = st.builds(Accepted, texts, texts, texts, texts, st.text(min_size=1, max_size=accepted.MOST), texts)


@given(st.lists(entries, max_size=5), st.lists(entries, max_size=5))
def test_what_is_accepted_comes_back_the_newest_reason_of_a_step_first(
    tmp_path_factory: pytest.TempPathFactory, old: list[Accepted], new: list[Accepted]
) -> None:
    storage = str(tmp_path_factory.mktemp("storage"))
    accepted.add(storage, old)
    accepted.add(storage, new)
    assert {one.step: one for one in accepted.read(storage)} == {one.step: one for one in (*old, *new)}


def test_nothing_is_accepted_on_a_remote_storage() -> None:
    assert accepted.read("memory://runs") == []
    with pytest.raises(InputError, match="expected a local storage, got memory://runs"):
        accepted.add("memory://runs", [])


def test_machines_are_not_mixed(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(storage, series(random.Random(11), 7, lambda _: 9.0), "other", usable_cores=64)
    [line] = told(capsys, storage, code=2)
    assert "expected one machine with runs, got " in line
    assert "zen-2cores-" in line
    assert "zen-64cores-" in line
    [line] = told(capsys, storage, "--machine", "zen*", code=2)
    assert "got zen*; choose by --machine among zen-2cores-" in line
    assert ": 20 runs, " in told(capsys, storage, "--machine", "zen-2cores*")[0]
    assert ": 7 runs, " in told(capsys, storage, "--machine", "*64*")[0]


def test_this_machine_is_taken_of_several(
    storage: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(storage, series(random.Random(11), 7), "other", usable_cores=64)
    monkeypatch.setattr("bench.tools.history.machine_facts", lambda _: FACTS | {"cpu": {"name": "zen", "usable_cores": 64}})
    assert told(capsys, storage)[0].startswith("zen-64cores-")


def test_an_unknown_case_and_a_file_that_is_no_run_are_told(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [line] = told(capsys, storage, "csr*", code=2)
    assert "got 'csr*', which none of 4 matches; one is forward[csr-0.9]" in line
    (storage / "zen" / "0021_run.json").write_text("{}")
    assert told(capsys, storage)[-1].startswith(f"skipped {storage}/zen/0021_run.json: ")


def test_a_remote_storage_is_read(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = fsspec.filesystem("memory")
    files.put(str(storage / "zen"), "/history/zen", recursive=True)
    try:
        lines = told(capsys, "memory://history", "--fail", code=1)
    finally:
        files.rm("/history", recursive=True)
    assert lines[-1].startswith(f"{CASE}: slower from memory://")
