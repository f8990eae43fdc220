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

    def _pointer(self, address: Any) -> Any:
        return self.builder.inttoptr(address, ir.PointerType())

    def _headed(self, place: int) -> Any:
        return self.builder.load(self._pointer(self.add(self.header, 8 * place)), typ=INTEGER)

    def thread(self) -> Any:
        """Return the number of this thread in its team; 0 where there is no runtime, and so no other."""
        if not barrier_address():
            return self.constant(0)
        number = self.builder.call(self._called(THREAD, ir.IntType(32)), [])
        return self.divided(self.builder.zext(number, INTEGER), self._headed(0))[1]

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
        builder = self.builder
        thread, team = self.thread(), self._headed(0)
        if self.phase and barrier_address():  # else a thread is always alone
            # One alone may be of a team of the caller's own, whose others it would wait for.
            with builder.if_then(builder.icmp_signed(">", team, self.constant(1))):
                builder.call(self._called(BARRIER, ir.VoidType()), [])
        tickets = self.add(self.header, self._headed(1), self.times(team, 8 * self.phase))
        self.phase += 1
        with self.loop(self.constant(0), team) as turn:
            _, whose = self.divided(self.add(thread, turn.place), team)
            first, last = self.share(tasks, whose, team)
            ticket, count = self.add(tickets, self.times(whose, 8)), builder.sub(last, first)
            head, body, after = (self.function.append_basic_block() for _ in range(3))
            builder.branch(head)
            builder.position_at_end(head)
            task = self._take_ticket(ticket)
            builder.cbranch(builder.icmp_signed("<", task, count), body, after)
            builder.position_at_end(body)
            yield self.add(first, task)
            builder.branch(head)
            builder.position_at_end(after)


class Loop:
    """A loop's integer `place` and what it carries: set `carried` in the block to hand it on; after it, it is what is left."""

    def __init__(self, place: Any, carried: list[Any]) -> None:
        """Start with the values that come in."""
        self.place, self.carried = place, list(carried)
