"""All that a GPU is wanted for, in one go, where there is none: parts that fail or hang, and what each asks of pytest."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from bench import __main__ as tool
from bench.hooks import values
from bench.tools import gpu
from bench.tools.gpu import PARTS, Part, run_parts
from sparse_models.layers import LAYERS
from tests.helpers.in_process import run


class Program(Part):
    """A part that is a program of Python, and no pytest."""

    def command(self, storage: Path) -> list[str]:
        return [sys.executable, "-c", self.arguments[0], str(storage)]


SAVES = """
import signal, sys, time
def save(*_):
    print("saved what there was")
    sys.exit(2)
signal.signal(signal.SIGINT, save)
print("begun", flush=True)
time.sleep(60)
"""
DEAF = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"


def test_each_part_runs_whatever_became_of_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "ENDING_SECONDS", 0.3)
    parts = [
        Program("fails", 20, ("import sys; print('what is wrong'); sys.exit(3)",)),
        Program("saves", 0.5, (SAVES,)),
        Program("deaf", 0.5, (DEAF,)),
        Program("good", 20, ("import pathlib, sys; print(pathlib.Path.cwd(), sys.argv[1])",)),
    ]
    told, began = list[str](), time.monotonic()
    assert run_parts(parts, tmp_path / "a" / "b", tmp_path / "runs", 60, told.append) == 1
    assert time.monotonic() - began < 20
    told = [line.rpartition(" (")[0] or line for line in told]
    assert told[-1] == "Not done: fails, saves, deaf; the others are."
    assert told[told.index("fails: ended with 3") + 1] == "    what is wrong"
    assert told[told.index("saves: cut short, it took too long") + 2] == "    saved what there was"
    assert "deaf: cut short, it took too long" in told
    assert "good: done" in told
    assert (tmp_path / "a" / "b" / "good.txt").read_text() == f"{gpu.ROOT} {tmp_path / 'runs'}\n"


def test_a_second_ctrl_c_leaves_nothing_running(monkeypatch: pytest.MonkeyPatch) -> None:
    process = subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"deaf\n"
    wait = process.wait

    def interrupted(seconds: float | None = None) -> int:
        if seconds is not None:
            raise KeyboardInterrupt
        return wait()

    monkeypatch.setattr(process, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        gpu._cut_short(process)
    assert process.poll() == -signal.SIGKILL


def test_to_be_told_to_end_is_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is running is of a session of its own, which no terminal and no scheduler ends."""
    held = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGHUP)}
    found = list[object]()

    def noted(*_: object) -> int:
        found.extend(map(signal.getsignal, held))
        return 0

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "run_parts", noted)
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
        assert tool.main(["gpu"]) == 0
    finally:
        for one, handler in held.items():
            signal.signal(one, handler)
    assert found == [signal.default_int_handler, signal.SIG_IGN]


def test_what_no_time_is_left_for_is_told_and_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "ENDING_SECONDS", 0.1)
    (tmp_path / "second.txt").write_text("of an earlier run")
    told = list[str]()
    parts = [Program(name, 9, ("import time; time.sleep(60)",)) for name in ("first", "second")]
    assert run_parts(parts, tmp_path, tmp_path, 0.4, told.append) == 1
    assert told[-1] == "Not done: first, second; the others are."
    assert any(line.startswith("second: not begun, the time was over") for line in told)
    assert not any("earlier" in line for line in told)
    assert (tmp_path / "second.txt").read_text() == "of an earlier run"


def test_all_is_well_where_all_is(tmp_path: Path) -> None:
    told = list[str]()
    assert run_parts([Program("good", 20, ("pass",))], tmp_path, tmp_path, 60, told.append) == 0
    assert told[-1] == "All 1 parts are done."


def test_all_parts_together_take_no_longer_than_there_is() -> None:
    assert sum(part.seconds for part in PARTS) <= gpu.SECONDS <= 600
    assert len({part.name for part in PARTS}) == len(PARTS)


@pytest.mark.filterwarnings("ignore:Not saving anything")
@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_a_part_asks_for_cases_that_there_are(part: Part, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with a card: what is collected is not run."""
    monkeypatch.setattr(values, "device", lambda text: text)
    for layer in LAYERS.values():  # whatever is missing here for some of them
        monkeypatch.setattr(layer, "devices", ("cpu", "cuda"))
    _, _, pytest_, path, *arguments = part.command(tmp_path)
    assert pytest_ == "pytest"
    if "-n" in arguments:
        del arguments[arguments.index("-n") :]
    if not part.is_run:
        assert path == "tests"
        path = "tests/sparse_models/kernels/gpu"  # a few of them, for all take 20 seconds to collect
    done = run(*arguments, "--collect-only", "-q", path=path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "cuda" in done.stdout
    if part.is_run:
        layers = part.arguments[part.arguments.index("--layer") + 1].split(",") if part.arguments else ["tiled", "csr"]
        assert all(f"[{layer}-" in done.stdout for layer in layers)


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for options, message in (([], "expected a GPU that PyTorch can use, got none"), (["--parts", "tests,all"], "got 'all'")):
        with pytest.raises(SystemExit, match="2"):
            tool.main(["gpu", *options])
        assert message in capsys.readouterr().err
