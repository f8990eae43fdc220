import time
from collections.abc import Callable

import pytest
import torch

from bench.engine import rounds
from bench.engine.pairing import Plan, race
from bench.engine.rounds import evictor, synchronised, time_round
from bench.machine.bounds import cache_bytes


class Ticks:
    """A clock that work moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: float) -> Callable[[], None]:
        def run() -> None:
            self.now += seconds

        return run


def test_a_round_tells_the_seconds_of_one_call() -> None:
    clock = Ticks()
    assert time_round(clock.work(2.0), 5, "cpu", clock)[:2] == (2.0, None)
    assert clock.now == 10.0


def test_emptying_the_caches_is_not_in_the_time() -> None:
    clock = Ticks()
    assert time_round(clock.work(2.0), 5, "cpu", clock, clock.work(100.0)).seconds == 2.0
    assert clock.now == 5 * 102.0


def test_the_evictor_writes_more_than_the_caches_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[torch.Tensor] = []
    ones = torch.ones

    def noted(*size: int, device: str) -> torch.Tensor:
        written.append(ones(*size, device=device))
        return written[-1]

    monkeypatch.setattr(torch, "ones", noted)
    evict = evictor.__wrapped__("cpu")
    evict()
    [buffer] = written
    assert buffer.nbytes >= 2 * cache_bytes("cpu") - 4
    assert bool((buffer == 2).all())


def test_a_cpu_is_never_waited_for() -> None:
    assert synchronised(time.perf_counter, "cpu") is time.perf_counter


class FakeCuda:
    """As much of torch.cuda as a round asks for: a queue that its work fills, and events that read its end."""

    def __init__(self, launch: float, kernel: float) -> None:
        self.host, self.queue_end, self.launch, self.kernel = 0.0, 0.0, launch, kernel

    def work(self) -> None:
        self.host += self.launch
        self.queue_end = max(self.queue_end, self.host) + self.kernel

    def _sleep(self, cycles: int) -> None:
        self.queue_end = max(self.queue_end, self.host) + cycles / rounds.CLOCK_HZ

    def synchronize(self) -> None:
        self.host = max(self.host, self.queue_end)

    def Event(self, *, enable_timing: bool) -> "FakeEvent":  # noqa: N802  # torch's name
        assert enable_timing
        return FakeEvent(self)


class FakeEvent:
    """An event in the queue."""

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda, self.at = cuda, 0.0

    def record(self) -> None:
        self.at = max(self.cuda.queue_end, self.cuda.host)

    def elapsed_time(self, stop: "FakeEvent") -> float:
        return (stop.at - self.at) * 1e3


@pytest.mark.parametrize("evicting", [False, True])
@pytest.mark.parametrize(("launch", "kernel"), [(1e-5, 2e-6), (1e-5, 1e-3)])
def test_device_time_is_the_kernels_though_launches_take_longer(
    monkeypatch: pytest.MonkeyPatch, launch: float, kernel: float, *, evicting: bool
) -> None:
    cuda = FakeCuda(launch, kernel)
    monkeypatch.setattr(torch, "cuda", cuda)
    monkeypatch.setattr(time, "perf_counter", lambda: cuda.host)

    def evict() -> None:
        cuda.queue_end = max(cuda.queue_end, cuda.host) + 5e-5

    took = time_round(cuda.work, 20, "cuda", time.perf_counter, evict if evicting else None, queueing=launch)
    assert took.seconds == pytest.approx(kernel)
    assert took.host_seconds == pytest.approx(launch)


@pytest.mark.parametrize("pairs", [2, 10])
def test_a_device_calls_an_epoch_once_for_each_pair(monkeypatch: pytest.MonkeyPatch, pairs: int) -> None:
    """No part of a training can be repeated, be it to learn how long the host is busy with it."""
    cuda = FakeCuda(1e-8, 1e-3)
    monkeypatch.setattr(torch, "cuda", cuda)
    monkeypatch.setattr(time, "perf_counter", lambda: cuda.host)
    epochs = [iter(range(pairs)) for _ in range(2)]

    def epoch(number: int) -> Callable[[], None]:
        def train() -> None:
            next(epochs[number])
            cuda.work()

        return train

    raced = race(epoch(0), epoch(1), "cuda", Plan(1, 1, pairs=pairs), time.perf_counter)
    assert raced.seconds == pytest.approx([1e-3] * pairs, rel=1e-3)
    assert [next(left, None) for left in epochs] == [None, None]


def test_a_replay_is_timed_by_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda(1e-8, 1e-3)
    monkeypatch.setattr(torch, "cuda", cuda)
    monkeypatch.setattr(time, "perf_counter", lambda: cuda.host)

    class Replayed:
        calls = 50

        def __call__(self) -> None:
            cuda.work()

    took = time_round(Replayed(), 2, "cuda", time.perf_counter)
    assert took.seconds == pytest.approx(1e-3 / 50, rel=1e-3)
    raced = race(Replayed(), cuda.work, "cuda", Plan(1, 2, pairs=2), time.perf_counter)
    assert raced.speedups == pytest.approx([50.0] * 2, rel=1e-3)
    assert raced.timed == pytest.approx(6e-3, rel=1e-3)


@pytest.mark.card
def test_device_time_agrees_with_an_independent_clock() -> None:
    a, b = (torch.rand(4096, 4096, device="cuda") for _ in range(2))

    def work() -> torch.Tensor:
        return a @ b

    for _ in range(10):
        work()
    device = min(time_round(work, 20, "cuda").seconds for _ in range(5))
    clock = synchronised(time.perf_counter, "cuda")
    walls = []
    for _ in range(5):
        start = clock()
        for _ in range(20):
            work()
        walls.append((clock() - start) / 20)
    assert device == pytest.approx(min(walls), rel=0.1)
