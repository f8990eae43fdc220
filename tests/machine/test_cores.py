"""Each thread of a team on a core of its own, and time saved up on it; what the scheduler does is simulated."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.machine import cores
from bench.machine.cores import MORE_NAPS, MOST_SECONDS, NAPPING, OWED, WAIT_SECONDS, Cores
from sparse_models.kernels.contention import CORES

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="threads choose their core and their policy on Linux")


@pytest.fixture
def team() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(CORES)
    yield
    torch.set_num_threads(before)


def settings() -> list[tuple[set[int], int]]:
    """Return the cores and the policy of each thread of the team."""
    told: list[tuple[set[int], int]] = []
    cores._by_each(lambda: told.append((os.sched_getaffinity(0), os.sched_getscheduler(0))))
    return told


@LINUX
@pytest.mark.usefixtures("team")
def test_each_thread_has_a_core_while_they_are_claimed_and_any_after() -> None:
    before, claimed = settings(), Cores()
    try:
        claimed.claim()
        assert claimed.are_claimed
        assert sorted(next(iter(own)) for own, _ in settings()) == sorted(before[0][0])
        assert {policy for _, policy in settings()} == {os.SCHED_BATCH}
    finally:
        claimed.release()
    assert settings() == before
    assert not claimed.are_claimed


@LINUX
def test_fewer_threads_than_cores_are_on_any_and_more_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before, claimed = settings(), Cores()
    monkeypatch.setattr(cores, "CORES", 2)
    try:
        claimed.claim()
        assert settings() == [(before[0][0], os.SCHED_BATCH)]
    finally:
        claimed.release()
    monkeypatch.setattr(cores, "CORES", 0)
    claimed.claim()
    assert not claimed.are_claimed
    assert settings() == before


@LINUX
@pytest.mark.usefixtures("team")
def test_threads_of_a_larger_team_are_released_when_a_smaller_one_has_its_turn() -> None:
    before, larger = settings(), Cores()
    try:
        larger.claim()
        others = set(larger.team) - {threading.get_native_id()}
        torch.set_num_threads(1)
        larger.claim()
        assert larger.team == [threading.get_native_id()]
        assert all((os.sched_getaffinity(one), os.sched_getscheduler(one)) in before for one in others)
    finally:
        larger.release()


@LINUX
@pytest.mark.usefixtures("team")
def test_what_a_thread_with_a_core_has_started_is_released_too() -> None:
    claimed, over = Cores(), threading.Event()
    started = threading.Thread(target=over.wait)
    try:
        claimed.claim()
        started.start()
        thread = started.native_id or 0
        assert os.sched_getscheduler(thread) == os.SCHED_BATCH
        claimed.release()
        assert (os.sched_getaffinity(thread), os.sched_getscheduler(thread)) == (cores._ALLOWED, os.SCHED_OTHER)
    finally:
        claimed.release()
        over.set()


@LINUX
@pytest.mark.usefixtures("team")
@pytest.mark.parametrize("forbidden", ["sched_setaffinity", "sched_setscheduler"])
def test_where_threads_may_not_choose_none_are_claimed(monkeypatch: pytest.MonkeyPatch, forbidden: str) -> None:
    before, claimed = settings(), Cores()

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, forbidden, refuse)
    claimed.claim()
    assert not claimed.are_claimed
    assert settings() == before


@LINUX
def test_a_thread_is_as_nice_as_it_was() -> None:
    told: list[object] = []

    def place() -> None:  # of its own, whose niceness is nobody else's
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, 5)
        told.append(cores._place(thread, os.sched_getaffinity(0), os.SCHED_BATCH, 0.1))
        told.append(os.getpriority(os.PRIO_PROCESS, thread))

    thread = threading.Thread(target=place)
    thread.start()
    thread.join()
    assert told == [True, 5]


class Shared:
    """A team, of two, one of which waits for so many seconds whenever it wakes, and has once before; it counts naps."""

    def __init__(self, patch: pytest.MonkeyPatch, waiting: int, seconds: float, size: int = 2) -> None:
        team = range(1, size + 1)
        self.naps = dict.fromkeys(team, 0)
        self.waited = {str(thread): round(1e9 * seconds) * (thread == waiting) for thread in team}
        self.now = 1

        def by_each(call: Callable[[], None]) -> None:
            for thread in team:
                self.now = thread
                call()

        def sleep(_: float) -> None:
            self.naps[self.now] += 1
            self.waited[str(self.now)] += round(1e9 * seconds) * (self.now == waiting)

        patch.setattr(threading, "get_native_id", lambda: self.now)
        patch.setattr(cores, "_by_each", by_each)
        patch.setattr(cores, "waits", lambda: dict(self.waited))
        patch.setattr(time, "sleep", sleep)
        self.cores = Cores()
        self.cores.are_claimed, self.cores.team = True, list(team)
        patch.setattr(cores, "_ALLOWED", {0, 1})
        patch.setattr(cores, "threads", lambda: size)
        patch.setattr(cores, "CORES", size)
        patch.setattr(cores, "_place", lambda *_: True)


@LINUX
@given(st.sampled_from([1, 2]), st.floats(1e-3, 0.05))
def test_threads_nap_in_turn_until_one_is_owed_what_a_round_takes(waiting: int, seconds: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        shared = Shared(patch, waiting, 4e-3)
        shared.cores.save_up(seconds)
        assert OWED * seconds <= shared.cores.waited < OWED * seconds + 4e-3
        assert shared.cores.waited == pytest.approx(4e-3 * shared.naps[waiting])
        assert abs(shared.naps[1] - shared.naps[2]) <= 1
        shared.cores.look()
        assert shared.cores.are_claimed


@LINUX
def test_where_nobody_else_wants_the_cores_there_are_few_naps_and_they_are_released(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = Shared(monkeypatch, 1, 1e-5)
    shared.cores.save_up(0.05)
    assert shared.naps == {1: MORE_NAPS, 2: MORE_NAPS}
    assert shared.cores.waited < WAIT_SECONDS
    shared.cores.look()
    assert not shared.cores.are_claimed


@LINUX
def test_no_more_is_saved_up_than_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = Shared(monkeypatch, 1, 4e-3)
    shared.cores.save_up(3600.0)
    assert shared.cores.waited == pytest.approx(OWED * MOST_SECONDS, abs=4e-3)


@LINUX
def test_of_many_threads_only_some_nap_among_them_the_one_that_has_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = Shared(monkeypatch, 50, 4e-3, size=64)
    shared.cores.save_up(0.01)
    assert shared.cores.waited >= OWED * 0.01
    assert shared.naps[50] == 5
    assert sum(map(bool, shared.naps.values())) == NAPPING


@LINUX
def test_threads_that_are_there_since_get_cores_and_nap_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = Shared(monkeypatch, 2, 4e-3)
    shared.cores.team = [1, 3]  # the third has ended
    shared.cores.save_up(0.01)
    assert shared.cores.team == [1, 2]
    assert shared.cores.waited >= 0.02


@pytest.mark.usefixtures("team")
def test_each_thread_of_the_team_calls_once() -> None:
    told: list[int] = []
    cores._by_each(lambda: told.append(threading.get_native_id()))
    assert len(set(told)) == len(told) == CORES
