import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bench import waiting
from bench.waiting import waited

LINUX = pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this kernel does not tell how long threads wait")


@pytest.fixture(autouse=True)
def forgotten() -> None:
    waiting._files.clear()


def spin(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


@LINUX
def test_more_processes_than_cores_make_some_wait() -> None:
    loads = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        before = waited()
        spin(1.0)
        assert waited() - before > 0.05
    finally:
        for load in loads:
            load.kill()
            load.wait()


@LINUX
def test_threads_come_and_go() -> None:
    first = waited()
    thread = threading.Thread(target=spin, args=(0.05,))
    thread.start()
    waited()
    assert len(waiting._files) >= 2
    thread.join()
    assert waited() >= 0 <= first
    assert len(waiting._files) >= 1


def told(folder: Path, **threads: str) -> None:
    for thread, text in threads.items():
        (folder / thread).mkdir(exist_ok=True)
        (folder / thread / "schedstat").write_text(text)


def test_the_waits_of_all_threads_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "TASKS", tmp_path)
    told(tmp_path, one="123 4000000 5\n", two="99 6000000 7\n")
    assert waited() == pytest.approx(0.01)
    told(tmp_path, one="123 5000000 5\n")
    assert waited() == pytest.approx(0.011)


@pytest.mark.parametrize("text", ["", "0", "one two three"])
def test_a_kernel_that_does_not_count_waits_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(waiting, "TASKS", tmp_path)
    told(tmp_path, one=text)
    assert waited() == 0
    assert not waiting._files


def test_no_proc_waits_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "TASKS", tmp_path / "absent")
    assert waited() == 0
