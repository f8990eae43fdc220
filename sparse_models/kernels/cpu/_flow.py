"""How a kernel goes on: in loops, and in tasks that the threads of a team share."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

from sparse_models.kernels.cpu._arithmetic import INTEGER, Arithmetic
from sparse_models.kernels.cpu._openmp import BARRIER, THREAD, barrier_address

HEADER = 2  # integers: of how many threads the team is, and how far behind the first its tickets are, one each for each phase


class Flow(Arithmetic):
    """A function `name(arguments)` in the making: `arguments` points to a header and 64-bit integers, addresses among them."""

    def __init__(self, module: ir.Module, name: str, dtype: str, lanes: int) -> None:
        """Start the function; numbers are of `dtype`, and a vector holds `lanes` of them."""
        self.function = ir.Function(module, ir.FunctionType(ir.VoidType(), [ir.PointerType()]), name)
        super().__init__(module, ir.IRBuilder(self.function.append_basic_block()), dtype, lanes)
        self.header, self.phase = self.builder.ptrtoint(self.function.args[0], INTEGER), 0
        # Asked once, before there is anything that a call would take out of registers, and kept where it takes none.
        self._number = self.builder.alloca(INTEGER)
        asked = self.builder.call(self._called(THREAD, ir.IntType(32)), []) if barrier_address() else None
        self.builder.store(self.builder.zext(asked, INTEGER) if asked else self.constant(0), self._number)

    def _pointer(self, address: Any) -> Any:
        return self.builder.inttoptr(address, ir.PointerType())

    def _headed(self, place: int) -> Any:
        return self.builder.load(self._pointer(self.add(self.header, 8 * place)), typ=INTEGER)

    def team(self) -> Any:
        """Return how many threads share the tasks."""
        return self._headed(0)

    def thread(self) -> Any:
        """Return the number of this thread in its team; 0 where there is no runtime, and so no other."""
        return self.divided(self.builder.load(self._number, typ=INTEGER), self.team())[1]

    def _called(self, name: str, result: Any) -> Any:
        """Return a function without arguments that is not the kernel's own."""
        return self.module.globals.get(name) or ir.Function(self.module, ir.FunctionType(result, []), name)

    @contextmanager
    def loop(self, start: Any, end: Any, step: Any = 1, carried: Sequence[Any] = ()) -> "Iterator[Loop]":
        """Emit the block under `with` once for each integer from `start` to below `end`; see Loop."""
        builder = self.builder
        before, head, body, after = builder.block, *(self.function.append_basic_block() for _ in range(3))
        builder.branch(head)
        builder.position_at_end(head)
        place = builder.phi(INTEGER)
        phis = [builder.phi(value.type) for value in carried]
        builder.cbranch(builder.icmp_signed("<", place, end), body, after)
        builder.position_at_end(body)
        loop = Loop(place, phis)
        yield loop
        following = self.add(place, step)
        for phi, first, last in zip([place, *phis], [start, *carried], [following, *loop.carried], strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(last, builder.block)
        builder.branch(head)
        builder.position_at_end(after)
        loop.carried = phis

    def _take_ticket(self, address: Any) -> Any:
        """Return the integer at an address and add 1 to it, one thread after the other."""
        return self.builder.atomic_rmw("add", self._pointer(address), self.constant(1), "monotonic")

    @contextmanager
    def tasks(self, tasks: Any) -> Iterator[Any]:
        """Emit the block under `with` for each task that this thread gets of so many; they begin when all before them are done.

        Each thread begins with its own share of them, and takes what is left of the others' after it: at every call it meets
        what it has left in its own caches. Where whoever was free took the next, what one core had written came to be read and
        written by another (docs/cpu_kernels.md).
        """
        builder, zero = self.builder, self.constant(0)
        if self.phase and barrier_address():  # else a thread is always alone
            # One alone may be of a team of the caller's own, whose others it would wait for.
            with builder.if_then(builder.icmp_signed(">", self.team(), self.constant(1))):
                builder.call(self._called(BARRIER, ir.VoidType()), [])
        before, (head, body, passed, after) = builder.block, (self.function.append_basic_block() for _ in range(4))
        builder.branch(head)
        builder.position_at_end(head)
        turn = builder.phi(INTEGER)
        # All but the turn is found anew for each task: what is kept from one to the next takes registers from those between.
        team = self.team()
        _, whose = self.divided(self.add(self.thread(), turn), team)
        first, last = self.share(tasks, whose, team)
        tickets = self.add(self.header, self._headed(1), self.times(team, 8 * self.phase))
        self.phase += 1
        task = self.add(first, self._take_ticket(self.add(tickets, self.times(whose, 8))))
        builder.cbranch(builder.icmp_signed("<", task, last), body, passed)
        builder.position_at_end(passed)
        following = self.add(turn, 1)
        builder.cbranch(builder.icmp_signed("<", following, team), head, after)
        builder.position_at_end(body)
        yield task
        for block, value in ((before, zero), (passed, following), (builder.block, turn)):
            turn.add_incoming(value, block)
        builder.branch(head)
        builder.position_at_end(after)


class Loop:
    """A loop's integer `place` and what it carries: set `carried` in the block to hand it on; after it, it is what is left."""

    def __init__(self, place: Any, carried: list[Any]) -> None:
        """Start with the values that come in."""
        self.place, self.carried = place, list(carried)
