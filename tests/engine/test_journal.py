"""What a broken run had measured is taken up, whole lines and no others, by a run that measures the very same."""

import json
import re
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import bench
from bench.cases import Case
from bench.engine.jobs import Effort, Job, Results
from bench.engine.journal import Journal, Said, broken, identity, sources
from bench.engine.pairing import Racer
from bench.engine.processes import Means, fork_server_for, measure_all
from bench.runs.reading import parse
from sparse_models.errors import InputError
from tests.engine.test_processes import cases_of, job, naming, still
from tests.helpers import in_process
from tests.helpers.damaged import is_sentence
from tests.helpers.processes.commands import begun

RUN = identity("machine", ["a", "b"])


def said(**more: Any) -> dict[str, Any]:
    """What a process says of a case."""
    return {"known": {}, "race": [[1.0], [2.0]], "facts": {"text": "ü\n\r\u2028"}, "spent": {"whole": 1.0}, **more}


def kept(folder: Path, visits: list[Said], run: dict[str, Any] | None = None) -> Path:
    """Leave the journal of a broken run and return where."""
    journal = Journal.start(folder, run or RUN)
    for visit in visits:
        journal.add(*visit)
    journal.close(is_saved=False)
    return journal.path


def taken_up(folder: Path) -> list[Said]:
    journal = Journal.resume(folder, RUN)
    journal.close(is_saved=False)
    return journal.said


def refusal(folder: Path, run: dict[str, Any] | None = None) -> str:
    with pytest.raises(InputError) as caught:
        Journal.resume(folder, run or RUN)
    assert is_sentence(str(caught.value))
    return str(caught.value)


VISITS = [Said(0, "a", said()), Said(0, "b", said(known={"found": [1]})), Said(1, "b", said())]


def test_a_journal_reads_back_what_was_said_but_for_failures(tmp_path: Path) -> None:
    kept(tmp_path, [VISITS[0], Said(0, "b", {"known": {}, "failure": "it died"}), VISITS[2]])
    assert taken_up(tmp_path) == [VISITS[0], VISITS[2]]


def test_a_journal_cut_at_any_byte_gives_the_whole_lines_before_the_cut_and_can_be_gone_on_with(tmp_path: Path) -> None:
    path = kept(tmp_path, VISITS)
    content = path.read_bytes()
    ends = [place + 1 for place, byte in enumerate(content) if byte == ord("\n")]
    assert len(ends) == 4
    for cut in range(len(content) + 1):
        path.write_bytes(content[:cut])
        whole = sum(end <= cut for end in ends)
        if whole == 0:
            assert "other sources" in refusal(tmp_path)
            continue
        journal = Journal.resume(tmp_path, RUN)
        assert journal.said == VISITS[: whole - 1]
        journal.add(*VISITS[2])
        journal.close(is_saved=False)
        assert taken_up(tmp_path) == [*VISITS[: whole - 1], VISITS[2]]


STRANGE = [b"{}", b"[]", b"null", b"\xff", b"\0" * 512, b"[" * 10**5, b'{"process":"0","name":"a","said":{}}',
           b'{"process":0,"name":"a","said":{}}', b'{"process":0,"name":"a","said":[]}',
           *(b'{"process":0,"name":"a","said":{"known":{},"race":%s,"facts":{},"spent":{}}}' % race for race in (b"1", b"[1,2]",
             b'[["a"],["b"]]', b"[[1],[]]", b"[[0],[1]]", b"[[NaN],[1]]", b"[[1],[2],0,[],[],[],[],[],[1],[]]"))]  # fmt: skip


@pytest.mark.parametrize("strange", STRANGE, ids=range(len(STRANGE)))
def test_from_a_line_that_is_none_on_nothing_is_read(tmp_path: Path, strange: bytes) -> None:
    path = kept(tmp_path, VISITS)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], strange, b"\n", *lines[2:]]))
    assert taken_up(tmp_path) == VISITS[:1]
    path.write_bytes(b"".join([strange, b"\n", *lines]))
    assert "other sources" in refusal(tmp_path)


def test_what_was_said_of_no_case_of_the_run_is_left_out(tmp_path: Path) -> None:
    kept(tmp_path, [*VISITS, Said(1, "c", said())])
    assert taken_up(tmp_path) == VISITS


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"sources": "other"}, "sources"), ({"machine": "other"}, "machine"), ({"cases": ["a"]}, "cases"),
        ({"sources": "", "cases": []}, "sources and other cases"),
    ],
)  # fmt: skip
def test_a_run_of_other_code_machine_or_cases_is_not_gone_on_with(tmp_path: Path, changed: dict[str, Any], told: str) -> None:
    path = kept(tmp_path, VISITS)
    assert refusal(tmp_path, RUN | changed).endswith(f", got {path.name} has other {told}")
    assert taken_up(tmp_path) == VISITS  # it is still there for its own


def test_without_a_broken_run_that_is_said(tmp_path: Path) -> None:
    assert refusal(tmp_path).endswith(", got none")
    assert refusal(tmp_path / "nowhere").endswith(", got none")
    kept(tmp_path, VISITS).with_suffix(".lock").mkdir()  # it cannot be locked, as where one may only read
    assert refusal(tmp_path).endswith(", got none")


def test_the_newest_that_fits_is_gone_on_with(tmp_path: Path) -> None:
    kept(tmp_path, VISITS[:1])
    kept(tmp_path, VISITS)
    kept(tmp_path, [], RUN | {"machine": "other"})
    assert taken_up(tmp_path) == VISITS


def test_a_journal_that_a_run_holds_is_no_broken_one(tmp_path: Path) -> None:
    journal = Journal.start(tmp_path, RUN)
    assert broken(tmp_path) == []
    assert "got none" in refusal(tmp_path)
    journal.close(is_saved=False)
    assert broken(tmp_path) == [journal.path]


def test_a_saved_run_leaves_no_journal(tmp_path: Path) -> None:
    Journal.start(tmp_path, RUN).close(is_saved=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full disk to write to")
def test_a_full_disk_takes_no_run_down(tmp_path: Path) -> None:
    journal = Journal.start(tmp_path, RUN)
    journal._file.close()
    journal._file = Path("/dev/full").open("a", encoding="utf-8")  # noqa: SIM115  # the journal closes it
    journal.add(*VISITS[0])
    journal.close(is_saved=False)
    assert taken_up(tmp_path) == []


def test_any_change_of_the_code_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "__path__", [str(tmp_path)])
    told = [sources()]
    for name, content in {"one.py": "", "sub/two.py": "a", "three.py": "a"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
        told.append(sources())
    (tmp_path / "one.py").write_text("b")
    told.append(sources())
    assert len(set(told)) == 5
    (tmp_path / "no_code.txt").write_text("")
    assert sources() == told[-1]


def measured(jobs: list[Job], journal: Journal, breaks_at: int = 0) -> tuple[Results, list[str]]:
    """Measure in four processes; broken off, as by Ctrl-C, once so many processes are through."""
    told: list[str] = []

    def tell(text: str) -> None:
        if cases_of(text) not in told:
            told.append(cases_of(text))
        if len(told) > breaks_at > 0:
            raise KeyboardInterrupt

    with closing(fork_server_for(jobs)) as fork_server:
        results = measure_all(jobs, Effort(4, 1e9, 120.0), Means(fork_server, progress=tell, journal=journal))
    journal.close(is_saved=False)
    return results, told


def visits(journal: Path) -> list[tuple[int, str]]:
    lines = [json.loads(line) for line in journal.read_text().splitlines()[1:]]
    return [(line["process"], line["name"]) for line in lines if "failure" not in line["said"]]


def failing_once(case: Case, race: Racer) -> dict[str, Any]:
    marker = Path(case.data)
    if not marker.exists():
        marker.touch()
        raise ZeroDivisionError
    return still(case, race)


def test_a_run_gone_on_with_measures_what_is_missing_and_ends_as_if_it_had_not_been_broken(tmp_path: Path) -> None:
    failing = naming(failing_once, tmp_path / "marker")
    jobs = [job(still), job(still, 50), job(still, 80), failing]
    run = identity("machine", [one.name for one in jobs])
    journal = Journal.start(tmp_path, run)
    before, _ = measured(jobs, journal, breaks_at=2)
    assert before.interrupted
    assert str(before.outcomes[failing.name].failure).startswith("ZeroDivisionError in failing_once, test_journal.py line ")
    journal.path.write_bytes(journal.path.read_bytes()[:-20])  # it was killed as it wrote the last visit
    known = Journal.resume(tmp_path, run)
    assert [visit.process for visit in known.said] == [0, 0, 0, 1, 1]
    after, told = measured(jobs, known)
    assert told == [
        "process 1 of 4: 1",  # the one that had failed
        "process 2 of 4: 2",
        "process 3 of 4: 4",
        "process 4 of 4: 4",
    ]
    for one in jobs:
        assert sorted(after.outcomes[one.name].processes) == [0, 1, 2, 3]
    for visit in known.said:
        assert after.outcomes[visit.name].races[visit.process].seconds == visit.said["race"][0]
    assert sorted(visits(journal.path)) == sorted({(process, one.name) for process in range(4) for one in jobs})
    again, told = measured(jobs, Journal.resume(tmp_path, run))
    assert told == []  # all is there
    assert {name: outcome.races for name, outcome in again.outcomes.items()} == {
        name: outcome.races for name, outcome in after.outcomes.items()
    }


@pytest.mark.alone
def test_a_run_that_is_killed_is_gone_on_with_and_saved_whole(tmp_path: Path) -> None:
    asked = [*in_process.SMALL, "--processes", "5", "--op", "forward", "--layer", "csr", f"--benchmark-storage={tmp_path}",
             "--benchmark-save=x"]  # fmt: skip
    command = [sys.executable, "-u", "-m", "pytest", "bench", "-p", "no:cacheprovider", *asked]
    with begun(command, cwd=in_process.ROOT) as process:
        while not any('"process":1,"name":"bench/' in path.read_text() for path in tmp_path.glob("*/.run-*.jsonl")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        [journal] = tmp_path.glob("*/.run-*.jsonl")
        assert broken(journal.parent) == []  # it is held
        process.kill()
        process.communicate()
    assert broken(journal.parent) == [journal]
    assert not list(tmp_path.rglob("*.json"))
    whole = tmp_path / "whole"
    done = in_process.run(*asked, "--resume", f"--benchmark-json={whole}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"going on with a broken run: ([2-9]|\d\d+) visits to cases were measured before", done.stdout)
    assert "process 1 of 5" not in done.stdout
    [saved] = tmp_path.rglob("*.json")
    assert [case.row.layer for case in parse("saved", saved.read_bytes()).cases.values()] == ["dense", "csr"]
    rows = [record["extra_info"] for record in json.loads(whole.read_text())["benchmarks"]]
    assert [len(row["process_pairs"]) for row in rows] == [5, 5]  # the least that a case is measured in
    assert not journal.exists()
