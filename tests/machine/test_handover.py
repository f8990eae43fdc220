"""A cache line goes round all threads, and one that has no core keeps the others no longer than they look for it."""

from collections.abc import Iterator, Sequence
from itertools import count

import pytest
import torch
from torch import Tensor

from sparse_models.kernels.cpu._team import run
from sparse_models.kernels.cpu.bounds import handover
from sparse_models.kernels.cpu.bounds.handover import HANDOVERS, LONGEST, TIMES, handover_seconds


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_threads_count_in_turn_to_the_end_however_long_one_waits_for_its_core(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []

    def run_and_look(function: int, arguments: Sequence[Tensor | int], team: int) -> None:
        run(function, arguments, team)
        line = arguments[0]
        assert isinstance(line, Tensor)
        counted.append(int(line.max()))

    monkeypatch.setattr(handover, "run", run_and_look)
    monkeypatch.setattr(handover, "HANDOVERS", 11)
    monkeypatch.setattr(handover, "PATIENCE", 2**40)
    assert handover_seconds() > 0
    assert set(counted) == {10}  # each thread has as many turns


@pytest.mark.usefixtures("two_threads")
def test_seconds_are_those_of_the_shortest_call_over_all_handovers(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.0, 4e-5, 1e-4, 1.3e-4, 2e-4, 2.5e-4])  # the beginning, then begin and end of each call
    monkeypatch.setattr("sparse_models.kernels.cpu.bounds.handover.time.perf_counter", lambda: next(clock))
    monkeypatch.setattr(handover, "run", lambda _, arguments, team: arguments[0].fill_(arguments[1]))
    assert handover_seconds() == pytest.approx(3e-5 / HANDOVERS)


def test_one_thread_hands_nothing_over() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    assert handover_seconds() == 0.0
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_a_thread_gives_up_on_one_that_has_no_core(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []

    def run_by_one(function: int, arguments: Sequence[Tensor | int], _: int) -> None:
        run(function, arguments, 1)  # which takes the first turn, and waits for another in vain
        line = arguments[0]
        assert isinstance(line, Tensor)
        counted.append(int(line.max()))

    monkeypatch.setattr(handover, "run", run_by_one)
    assert handover_seconds() == 0.0
    assert set(counted) == {HANDOVERS + 1}


@pytest.mark.usefixtures("two_threads")
def test_after_a_call_that_took_long_no_other_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    clock = count(0.0, 0.6 * LONGEST)
    monkeypatch.setattr("sparse_models.kernels.cpu.bounds.handover.time.perf_counter", lambda: next(clock))
    monkeypatch.setattr(handover, "run", lambda *_: calls.append(1))
    assert handover_seconds() == 0.0
    assert 1 <= len(calls) < TIMES
