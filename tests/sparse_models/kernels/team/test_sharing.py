"""How the threads of a team share a kernel's tasks: each is done once whoever comes, and begun by the same at each call."""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from llvmlite import ir
from torch import Tensor

from sparse_models.kernels.cpu._emit import Emitter
from sparse_models.kernels.cpu._openmp import barrier_address
from sparse_models.kernels.cpu._team import passed, run, run_on
from tests.helpers.processes.commands import output

PHASES, TASKS = 3, (0, 1, 2, 7, 100)
with_runtime = pytest.mark.skipif(not barrier_address(), reason="torch has no OpenMP runtime here")


def kernel_of(name: str, note: Callable[[Emitter, int, Any, list[Any]], None]) -> int:
    """A kernel of some phases that keeps which thread does each task, and notes more of a task by its phase, number and place.

    What it notes in are counts and what was done before, by place, a number of all that are done, and how many tasks there are.
    """
    emit = Emitter(ir.Module(), name, "float32", 1)
    counts, threads, before, done, tasks = (emit.argument(place) for place in range(5))
    for phase in range(PHASES):
        with emit.tasks(tasks) as task:
            at = emit.times(emit.add(emit.times(tasks, phase), task), 8)
            emit.store(emit.thread(), emit.add(threads, at))
            note(emit, phase, task, [emit.add(counts, at), emit.add(before, at), done, tasks])
    return emit.compiled()


def seen(emit: Emitter, done: Any, order: str) -> Any:
    """How many tasks are done by now."""
    return emit.builder.load_atomic(emit._pointer(done), order, 8, typ=ir.IntType(64))


@pytest.fixture(scope="module")
def noting() -> int:
    """A kernel that counts how often each task is done, and how many tasks were done before."""

    def note(emit: Emitter, phase: int, task: Any, places: list[Any]) -> None:
        count, before, done, _ = places
        emit.store(seen(emit, done, "monotonic"), before)
        is_first = emit.builder.zext(emit.builder.icmp_signed("==", task, emit.constant(0)), ir.IntType(64))
        with emit.loop(emit.constant(0), emit.times(is_first, 2**17)):  # the first takes long: others come to the next phase
            seen(emit, done, "monotonic")
        for counted in (count, done):
            emit._take_ticket(counted)

    return kernel_of("noting", note)


class Noted:
    """What a call of such a kernel noted, of each phase's tasks."""

    def __init__(self, tasks: int) -> None:
        self.counts, self.threads, self.before = (torch.full((PHASES, tasks), start) for start in (0, -1, -1))
        self.done = torch.zeros(1, dtype=torch.int64)
        self.given: list[Tensor | int] = [self.counts, self.threads, self.before, self.done, tasks]

    def check(self) -> None:
        phases, tasks = self.counts.shape
        assert (self.counts == 1).all()
        assert (self.before >= tasks * torch.arange(phases)[:, None]).all(), "a phase began before the one before it was done"


@pytest.mark.parametrize("tasks", TASKS)
@pytest.mark.parametrize("team", [0, 1, 2, 3, 8])
def test_each_task_is_done_once_by_a_team(noting: int, team: int, tasks: int) -> None:
    noted = Noted(tasks)
    run(noting, noted.given, team)
    noted.check()


@pytest.mark.parametrize("tasks", TASKS)
@pytest.mark.parametrize("come", [1, 2])
def test_each_task_is_done_once_where_some_threads_of_the_team_never_come(noting: int, come: int, tasks: int) -> None:
    noted = Noted(tasks)
    run_on(noting, passed(noting, noted.given, 3), come)
    noted.check()


@with_runtime
def test_a_thread_begins_with_the_same_tasks_at_each_call(noting: int) -> None:
    """Which are the first of its share; all of them, where the others are not done sooner."""
    for _ in range(20):
        noted = Noted(8)
        run_on(noting, passed(noting, noted.given, 4), 1)  # one of four, so that the order is known
        assert noted.before[0].tolist() == list(range(8))
    shares = Noted(2)
    run(_waiting(), shares.given, 2)  # no thread can do two
    assert shares.threads.tolist() == [[0, 1]] * PHASES


def _waiting() -> int:
    """The same, but tasks end when all of a phase have begun: as many threads as tasks must be at them."""

    def note(emit: Emitter, phase: int, task: Any, places: list[Any]) -> None:
        count, _, done, tasks = places
        emit._take_ticket(count)
        emit._take_ticket(done)
        look, after = (emit.function.append_basic_block() for _ in range(2))
        emit.builder.branch(look)
        emit.builder.position_at_end(look)
        begun = seen(emit, done, "acquire")
        emit.builder.cbranch(emit.builder.icmp_signed("<", begun, emit.times(tasks, phase + 1)), look, after)
        emit.builder.position_at_end(after)

    return kernel_of("waiting", note)


WITHIN = """
import ctypes
import torch
from sparse_models.kernels.cpu._openmp import openmp
from sparse_models.kernels.cpu.moves.rebuild import _rebuild
from sparse_models.kernels.cpu._team import run

kernel, parts = _rebuild("float32", ()), torch.zeros(0)

def call(_):
    for _ in range(left.pop()):  # not all of them as often
        run(kernel, (parts, 0, 8), team)

for team in (1, 2):
    left = [5, 0, 3]
    openmp().GOMP_parallel(ctypes.CFUNCTYPE(None, ctypes.c_void_p)(call), None, len(left), 0)
    assert not left
"""


@with_runtime
def test_a_kernel_of_phases_waits_for_nobody_of_a_team_of_the_callers() -> None:
    """In a process of its own, which would wait for ever."""
    output([sys.executable, "-c", WITHIN])


def test_each_task_is_done_once_in_calls_by_several_threads_of_python(noting: int) -> None:
    def call(_: int) -> Noted:
        noted = Noted(50)
        run(noting, noted.given, 2)
        return noted

    with ThreadPoolExecutor(4) as pool:
        for noted in pool.map(call, range(40)):
            noted.check()
