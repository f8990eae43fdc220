"""How far apart the cores are that torch's threads run on: the time that a cache line takes from one to the next.

On a Zen 4 server cores that share a cache hand a line over in some 30 ns, others in 160, and what two threads compute together
takes up to twice as long there. A virtual machine's cores are moved about by its host, which tells nothing of it.
"""

import time

import torch
from llvmlite import ir

from sparse_models.kernels.cpu._arithmetic import INTEGER
from sparse_models.kernels.cpu._compile import kernel
from sparse_models.kernels.cpu._emit import CACHE_LINE, Emitter
from sparse_models.kernels.cpu._team import run, threads

HANDOVERS, TIMES = 1000, 3  # in a call, 30 us of cores that share a cache, and calls, of which the shortest tells
PATIENCE = 2**14  # looks at the line, some ten microseconds, before the thread whose turn it is is taken to have no core
LONGEST = 2e-3  # seconds after which no other call is tried


def handover_seconds() -> float:
    """Return the seconds in which a cache line goes from one of torch's threads to the next, round all of them.

    It is the least of some calls; 0 where there is one thread, or in each call some thread had no core.
    """
    team, words = threads(), CACHE_LINE // 8
    if team == 1:
        return 0.0
    line = torch.empty(2 * words, dtype=torch.int64, device="cpu")
    total, taken, ring = HANDOVERS // team * team, list[float](), _ring()
    begin = time.perf_counter()
    for _ in range(TIMES):
        line.zero_()
        start = time.perf_counter()
        if start > begin + LONGEST:
            break
        run(ring, (line, total, team, PATIENCE), team)
        seconds = time.perf_counter() - start
        if line.max() == total:
            taken.append(seconds / total)
    return min(taken, default=0.0)


@kernel
def _ring() -> int:
    """Return the address of a kernel by which threads count to `total` in turn; more where one looked `patience` times."""
    emit = Emitter(ir.Module(), "ring", "float32", 1)
    line, total, team, patience = (emit.argument(place) for place in range(4))
    builder, word = emit.builder, emit.builder.inttoptr(emit.aligned(line), ir.PointerType())
    with emit.tasks(team) as own:  # each thread has one: it is through with it when all are
        before = builder.block
        look, wait, give_up, add, after = (emit.function.append_basic_block() for _ in range(5))
        builder.branch(look)
        builder.position_at_end(look)
        turn, looks = builder.phi(INTEGER), builder.phi(INTEGER)
        count = builder.load_atomic(word, "acquire", 8, typ=INTEGER)
        builder.cbranch(builder.icmp_signed("==", count, turn), add, wait)

        builder.position_at_end(wait)
        looked = emit.add(looks, 1)
        is_over = builder.or_(builder.icmp_signed(">", looks, patience), builder.icmp_signed(">", count, total))
        builder.cbranch(is_over, give_up, look)

        builder.position_at_end(give_up)
        builder.atomic_rmw("xchg", word, emit.add(total, 1), "release")
        builder.branch(after)

        builder.position_at_end(add)
        builder.atomic_rmw("xchg", word, emit.add(turn, 1), "release")
        following = emit.add(turn, team)
        builder.cbranch(builder.icmp_signed("<", following, total), look, after)
        none = emit.constant(0)
        for block, next_turn, seen in ((before, own, none), (wait, turn, looked), (add, following, none)):
            turn.add_incoming(next_turn, block)
            looks.add_incoming(seen, block)
        builder.position_at_end(after)
    return emit.compiled()
