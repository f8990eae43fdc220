"""Processes come from one that stands ready, say only what they are to say, and are gone when nobody listens."""

import json
import math
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bench.cases import Case
from bench.engine.forkserver import _read
from bench.engine.jobs import Job
from bench.engine.pairing import PATIENCE, Racer
from bench.engine.preparing import found_out
from bench.engine.processes import Means, fork_server_for, fork_server_of
from bench.works.once_per_run import KNOWN
from tests.engine.test_processes import job, measured, naming, still
from tests.works import test_preparing as preparing


def orphaned(case: Case, race: Racer) -> dict[str, Any]:
    if "orphaned" not in KNOWN and os.getppid() != int(case.data):
        os.kill(os.getppid(), signal.SIGKILL)
    KNOWN["orphaned"] = True
    return still(case, race)


def noisy(case: Case, race: Racer) -> dict[str, Any]:
    print("this is not a result")
    os.write(1, b"nor is this\n")
    return still(case, race)


def test_what_was_to_fork_the_next_process_is_replaced_if_it_dies() -> None:
    results, _ = measured(naming(orphaned, os.getpid()), processes=2)
    assert results.outcomes["orphaned0-0"].failure is None
    assert results.outcomes["orphaned0-0"].processes == [0, 1]


def test_what_a_case_prints_is_not_taken_for_a_result() -> None:
    results, _ = measured(job(noisy), processes=1)
    assert len(results.outcomes["noisy0-0"].races) == 1


def lingers(case: Case, race: Racer) -> dict[str, Any]:
    time.sleep(600)
    raise AssertionError


def test_a_process_that_is_not_listened_to_is_gone_before_the_next_is_asked() -> None:
    asked = {"patience": PATIENCE, "timer": "time.perf_counter", "disable_gc": False, "known": {}, "seconds": 0.0}
    with closing(fork_server_for([job(still)])) as fork_server:
        fresh = fork_server.run(asked | {"cases": [(__name__, "lingers", job(lingers).case)]})
        assert "begin" not in next(fresh)
        lingering = fork_server._forked
        assert next(fresh) == {"begin": 0}
        fresh.close()
        assert lingering is not None
        with pytest.raises(ProcessLookupError):
            os.kill(lingering, 0)
        _, began, said = fork_server.run(asked | {"cases": [(still.__module__, "still", job(still).case)]})
    assert (began["begin"], said["case"], len(said["race"][0])) == (0, 0, 6)


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def started(tmp_path: Path) -> Path:
    """The file in which is told what a process that lingers has started."""
    return tmp_path / "started"


def is_running(started: Path) -> bool:
    return started.exists() and any(Path(f"/proc/{pid}").exists() for pid in started.read_text().split())


def lingering(started: Path) -> list[Job]:
    return [preparing.job("csr_linear", sparsity, data=str(started)) for sparsity in (0.5, 0.9)]


def test_when_its_time_is_over_nothing_runs_any_more_that_it_has_started(started: Path) -> None:
    said: list[str] = []
    jobs = lingering(started)
    with closing(fork_server_for(jobs)) as fork_server:
        means = Means(fork_server, progress=lambda _: until(lambda: is_running(started)))
        known, _ = found_out(jobs, means, 0.0, said.append)
        assert not is_running(started)
    assert known == {}
    [line] = said
    assert line.startswith("what all processes need to know: the time was over before 2 of 2 were found; ")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # to fork where there are threads; this one starts a program alone
def test_nothing_runs_any_more_after_the_run_is_killed(started: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_ITS_OWN", "1")  # a fork server, which ends with the run
    if (run := os.fork()) == 0:
        try:
            found_out(lingering(started), Means(fork_server_of(1)), math.inf, print)
        finally:
            os._exit(1)
    try:
        until(lambda: is_running(started))
    finally:
        os.kill(run, signal.SIGKILL)
        os.waitpid(run, 0)
    until(lambda: not is_running(started))


def test_how_a_process_ended_is_read_behind_half_a_line_of_its_own() -> None:
    assert _read('{"case": 3, "facts": {"a"{"exit": -9}\n') == {"exit": -9}
    said = {"case": 3, "failure": 'it said {"exit": 1}'}
    assert _read(json.dumps(said) + "\n") == said


def starts_another(held: str) -> Iterator[dict[str, Any]]:
    with Path(held).open("w") as file:
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdout=file)
    yield {"started": True}
    os.kill(os.getpid(), signal.SIGALRM)


def test_what_a_process_started_ends_with_it(tmp_path: Path) -> None:
    os.mkfifo(held := tmp_path / "held")
    reading = os.open(held, os.O_RDONLY | os.O_NONBLOCK)
    with closing(fork_server_for([job(still)])) as fork_server:
        asked = {"cases": [], "call": [__name__, "starts_another", [str(held)]]}
        assert {"started": True} in list(fork_server.run(asked))
    assert select.select([reading], [], [], 5.0)[0]  # nobody holds it any longer
    os.close(reading)
