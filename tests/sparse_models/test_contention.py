import hashlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sparse_models.kernels import contention
from sparse_models.kernels.contention import CORES, Usage, longest, waits

pytestmark = pytest.mark.alone
LINUX = pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this kernel does not tell how long threads wait")


@pytest.fixture(autouse=True)
def forgotten() -> None:
    contention._files.clear()


def spin(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


@LINUX
def test_more_processes_than_cores_make_some_wait() -> None:
    loads = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        before = Usage.now()
        spin(1.0)
        after = Usage.now()
        assert longest(before.without, after.without) > 0.05
        assert not before.waited_for_itself(after)
        assert before.was_disturbed(after)
    finally:
        for load in loads:
            load.kill()
            load.wait()


@LINUX
def test_threads_come_and_go() -> None:
    """Each is known while it is there; what it was read from is let go of when it has ended."""
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    name = str(thread.native_id)
    assert name in waits()
    assert name in contention._files
    stop.set()
    thread.join()
    deadline = time.monotonic() + 10.0
    while name in waits():  # the kernel lets go of a thread a moment after Python has joined it
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert name not in contention._files


def told(folder: Path, **threads: str) -> None:
    for thread, text in threads.items():
        (folder / thread).mkdir(exist_ok=True)
        (folder / thread / "schedstat").write_text(text)


def test_the_thread_that_waits_longest_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contention, "TASKS", tmp_path)
    told(tmp_path, one="123 4000000 5\n", two="99 6000000 7\n")
    before = waits()
    assert before == {"one": 4_000_000, "two": 6_000_000}
    told(tmp_path, one="123 5000000 5\n", two="99 9000000 7\n", three="1 2000000 1\n")
    assert longest(before, waits()) == pytest.approx(0.003)
    told(tmp_path, three="1 4000000 1\n")  # a new thread has waited since it is there
    assert longest(before, waits()) == pytest.approx(0.004)


@pytest.mark.parametrize("text", ["", "0", "one two three"])
def test_a_kernel_that_does_not_count_waits_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(contention, "TASKS", tmp_path)
    told(tmp_path, one=text)
    assert longest({}, waits()) == 0
    assert not contention._files


def test_no_proc_waits_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contention, "TASKS", tmp_path / "absent")
    assert longest(waits(), waits()) == 0


def test_what_waits_for_its_own_threads_is_told_from_what_waits_for_others() -> None:
    """Over one second: all cores wanted and half of each had is another's doing; twice as many wanted is one's own."""
    start = Usage(5.0, 1.0, {"1": 10**9})
    half = CORES * 10**9 // 2
    assert not start.waited_for_itself(Usage(6.0, 1.0 + CORES / 2, {"1": 10**9, "2": half}))
    assert start.waited_for_itself(Usage(6.0, 1.0 + CORES, {"1": 10**9 + half, "2": half}))
    assert not start.waited_for_itself(Usage(6.0, 1.0 + CORES, {"1": 10**9}))


@LINUX
def test_more_threads_than_cores_wait_for_themselves() -> None:
    """Threads of hashlib run beside one another: they let go of Python's lock."""
    stop = time.perf_counter() + 1.0

    def hashed() -> None:
        while time.perf_counter() < stop:
            hashlib.sha256(bytes(2**22))

    threads = [threading.Thread(target=hashed) for _ in range(3 * CORES)]
    before = Usage.now()
    for thread in threads:
        thread.start()
    time.sleep(0.8)
    after = Usage.now()
    for thread in threads:
        thread.join()
    assert before.waited_for_itself(after)
