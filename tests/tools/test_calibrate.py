import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from subprocess import PIPE

import pytest

from bench import __main__ as tool
from bench.engine import calibration
from bench.engine.calibration import PLANTED, jobs_of
from bench.engine.jobs import Effort, Results, Spent
from bench.tools import calibrate
from tests.findings.test_calibration import outcomes


def test_a_failed_comparison_ends_the_calibration_with_its_reason_and_keeps_complete_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs = iter(range(3))

    def measured(*_: object, **__: object) -> Results:
        found = {job.name: outcome for job, outcome in outcomes(random.Random(0), 0.01).items()}
        if next(runs) == 1:
            next(iter(found.values())).failure = "the layer is wrong; nothing is timed"
        return Results(found, interrupted=False, out_of_time=False, spent=Spent())

    monkeypatch.setattr(calibrate, "measure_all", measured)
    told: list[str] = []
    jobs = jobs_of("cpu", 1)
    found = calibrate.calibrate(jobs, Effort(12, 0.05, 60.0), told.append)
    assert {one.run for one in found.comparisons} == {0}
    assert found.failure == f"{jobs[0].name}: the layer is wrong; nothing is timed"
    assert told[-1] == f"{found.failure}; 1 complete runs are kept"


def test_calibrate_runs_tells_its_progress_and_saves_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(calibration, "OPERATIONS", ("forward",))
    monkeypatch.setattr(calibration, "SHAPES", ("8x8b4",))
    monkeypatch.setattr(calibration, "LAYER_NAMES", ("csr",))
    path = tmp_path / "calibration.json"
    arguments = [
        "calibrate",
        "--processes",
        "2",
        "--comparisons",
        "5",
        "--threads",
        "1",
        "--budget",
        "60",
        "--load",
        "1",
        "--precision",
        "9",
    ]
    assert tool.main([*arguments, "--json", str(path)]) == 0
    told = capsys.readouterr().out
    assert "7 comparisons a run in up to 2 fresh processes, at most 60 s (--budget)" in told
    assert "run 2 of 2: 14 comparisons in " in told
    assert "; false alarms 0 of 8, slowdowns found 5 %: 0 of 2, 10 %: 0 of 2, 20 %: 0 of 2" in told  # two decide nothing
    assert "False alarms on identical code: 0 of 8" in told
    saved = json.loads(path.read_text())
    assert saved["kind"] == "calibration"
    assert saved["load"] == 1
    assert [one["planted"] for one in saved["comparisons"]] == list(PLANTED) * 2
    assert all(len(one["speedups"]) == 2 for one in saved["comparisons"])
    assert saved["machine"]["cpu"]["logical_cores"] > 0
    assert [entry.name for entry in tmp_path.iterdir()] == ["calibration.json"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--budget", "soon"], "expected a number above 0, got 'soon'; for example 0.05"),
        (["--processes", "0"], "expected a whole number from 1 to 999999, got '0'; for example 3"),
        (["--json", "/nowhere/at/all.json"], "--json: expected a path in a folder that exists, got /nowhere/at/all.json"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        tool.main(["calibrate", *arguments])
    assert caught.value.code == 2
    assert sentence in capsys.readouterr().err


LOADED = """
import os, signal, subprocess, sys, time
from bench.tools import calibrate

class Told(subprocess.Popen):
    def __init__(self, *given, **how):
        super().__init__(*given, **how)
        print(self.pid, flush=True)

subprocess.Popen = Told
signal.signal(signal.SIGINT, signal.default_int_handler)  # what is run in the background ignores it
try:
    with calibrate.loaded(1):
        if sys.argv[1] == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(600)
except KeyboardInterrupt:
    pass
"""


def is_running(process: int) -> bool:
    try:
        return ") Z" not in Path(f"/proc/{process}/stat").read_text()  # a zombie is one of which nobody has asked yet
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="processes are listed in Linux's /proc")
@pytest.mark.parametrize("how", ["killed", "interrupted"])
def test_what_keeps_cores_busy_ends_with_whoever_started_it_and_says_nothing_of_it(how: str) -> None:
    arguments = [sys.executable, "-c", LOADED, how]
    with subprocess.Popen(arguments, stdout=PIPE, stderr=PIPE, text=True, start_new_session=True) as started:
        assert started.stdout is not None
        load = int(started.stdout.readline())
        if how == "interrupted":
            time.sleep(1.0)  # it is importing PyTorch by now
            os.killpg(started.pid, signal.SIGINT)  # as a terminal does
        try:
            assert started.communicate(timeout=60) == ("", "")
        finally:
            started.kill()
    end = time.monotonic() + 60
    while is_running(load):
        assert time.monotonic() < end, "it goes on"
        time.sleep(0.1)
