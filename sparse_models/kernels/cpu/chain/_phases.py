"""Tasks of one kind after tasks of another, within one call by a team of threads."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

from sparse_models.kernels.cpu._emit import TICKETS, Emitter
from sparse_models.kernels.cpu._openmp import BARRIER, THREAD, barrier_address


class Phases:
    """Phases of a kernel: each begins when all threads are done with the one before, and has tickets of its own.

    With a `team`, the number of its threads, each thread begins with its own of as many shares of a phase's tasks, and takes
    what is left of the others' after it: at every call it meets what it has left in its own caches.
    """

    def __init__(self, emit: Emitter, place: int, team: Any = None) -> None:
        """Begin before the first; from an argument's place on, there is a 0 for each phase, and for each thread of a team."""
        self.emit, self.first, self.number, self.has_team = emit, place, 0, barrier_address() > 0
        self.team = emit.constant(1) if team is None else team
        self.thread = emit.constant(0)
        if self.has_team and team is not None:
            number = emit.builder.call(self._called(THREAD, ir.IntType(32)), [])
            _, self.thread = emit.divided(emit.builder.zext(number, self.team.type), self.team)

    def _called(self, name: str, result: Any) -> Any:
        return self.emit.module.globals.get(name) or ir.Function(self.emit.module, ir.FunctionType(result, []), name)

    @contextmanager
    def tasks(self, tasks: Any) -> Iterator[Any]:
        """Emit the block under `with` for each task that this thread gets of the next phase."""
        emit = self.emit
        if self.number and self.has_team:  # else a thread is always alone
            emit.builder.call(self._called(BARRIER, ir.VoidType()), [])
        tickets = emit.add(emit.tickets, 8 * (TICKETS + self.first), emit.times(self.team, 8 * self.number))
        self.number += 1
        with emit.loop(emit.constant(0), self.team) as turn:
            _, whose = emit.divided(emit.add(self.thread, turn.place), self.team)
            first, last = emit.share(tasks, whose, self.team)
            with emit.tasks(emit.builder.sub(last, first), emit.add(tickets, emit.times(whose, 8))) as task:
                yield emit.add(first, task)
