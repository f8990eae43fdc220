"""Tasks of one kind after tasks of another, within one call by a team of threads."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

from sparse_models.kernels.cpu._emit import TICKETS, Emitter
from sparse_models.kernels.cpu._openmp import BARRIER, barrier_address


class Phases:
    """Phases of a kernel: each begins when all threads are done with the one before, and has a ticket of its own."""

    def __init__(self, emit: Emitter, place: int) -> None:
        """Begin before the first; from an argument's place on, there is a 0 for each phase."""
        self.emit, self.first, self.number, self.has_team = emit, place, 0, barrier_address() > 0

    @contextmanager
    def tasks(self, tasks: Any) -> Iterator[Any]:
        """Emit the block under `with` for each task that this thread gets of the next phase."""
        if self.number and self.has_team:  # else a thread is always alone
            known = self.emit.module.globals.get(BARRIER)
            barrier = known or ir.Function(self.emit.module, ir.FunctionType(ir.VoidType(), []), BARRIER)
            self.emit.builder.call(barrier, [])
        tickets = self.emit.add(self.emit.tickets, 8 * (TICKETS + self.first + self.number))
        self.number += 1
        with self.emit.tasks(tasks, tickets) as task:
            yield task
