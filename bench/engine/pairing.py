"""Works in, pairs out: candidate and dense reference timed in turn (A B B A, or A A B B B B A A) within one process."""

import math
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from bench.engine.rounds import Timer, Took, calls_of, synchronised, time_round
from bench.machine.cores import Cores
from bench.runs.outcome import Race
from bench.statistics.intervals import SIGN_VALUES, median_interval
from bench.works.replays import Work, Works
from sparse_models.errors import DivergedError
from sparse_models.kernels.contention import DISTURBED, Usage

# Rounds are short on purpose: a core that something else takes for a few milliseconds then spoils few rounds wholly instead
# of many a little, and the median of the pairs passes over the few.
ROUND_SECONDS = 1e-3  # a round is this long at least: 5,000 times the resolution of the clock
MIN_PAIRS, MAX_PAIRS = 2, 256
# A visit in which pairs are disturbed goes on until so many are not, for up to so many times as long.
CLEAN_PAIRS, LONGER = 2, 3
WARM_UP_SECONDS = 0.01
# Whenever the other arm ran last, the caches are full of its data, so an arm is then called untimed before its clock starts: up
# to three times where a call is short. A call of SETTLED_SECONDS refills the caches in a small part of its own time, and does
# without. What is left is the same for both: of two pairs A B B A each arm follows itself once, if the first has run before.
SETTLE_CALLS, SETTLE_SECONDS, SETTLED_SECONDS = 3, 5e-4, 1e-2
# Where both settle, each has so many rounds whenever it is its turn: A A B B, B B A A. Four rounds then follow what is called
# untimed, not two; for works of some milliseconds, of which one call settles, that was a third of the time.
ROUNDS_A_TURN = 2
ALIKE = 1.5  # works within this factor of each other make the same number of calls a round


def nothing() -> None:
    """Do nothing."""


class Plan(NamedTuple):
    """Calls per round of candidate and reference, the untimed calls before each, and the number of pairs where it is fixed.

    What is to be looked at after each pair is called `after` it, untimed. Where the number of pairs is fixed, the candidate
    goes on alone for as long as the reference took longer: at most so many times `beyond`, and until it diverges.
    """

    loops: int
    dense_loops: int
    settle: int = 0
    dense_settle: int = 0
    pairs: int | None = None
    after: Callable[[], object] = nothing
    beyond: int = 0
    is_reversed: bool = False  # whether the candidate goes first, and not the reference
    seconds: float = 0.0  # that a call is known to take, and one of the reference: 0 where nothing is known
    dense_seconds: float = 0.0


class Patience(NamedTuple):
    """When a visit to a case ends: its pairs agree within this half-width of their interval, or this many seconds are spent."""

    seconds: float = 0.05
    precision: float = 0.025

    def is_satisfied(self, pairs: Race) -> bool:
        """Tell whether the pairs that count agree, or are so many that more would not help."""
        clean = len(pairs.undisturbed)
        if clean >= MAX_PAIRS or len(pairs.seconds) >= LONGER * MAX_PAIRS:
            return True
        return clean >= SIGN_VALUES and median_interval(pairs.speedups).half_width <= self.precision

    def is_over(self, pairs: Race, spent: float) -> bool:
        """Tell whether to stop; only after an even number of pairs, so that each arm goes first as often as the other."""
        count, clean = len(pairs.seconds), len(pairs.undisturbed)
        if count < MIN_PAIRS or count % 2:
            return False
        is_enough = clean >= min(count, CLEAN_PAIRS)
        return spent >= self.seconds * (1 if is_enough else LONGER) or self.is_satisfied(pairs)


PATIENCE = Patience()


class Racer(Protocol):
    """What a benchmark body is given to time its two works with; `once` where each is only to run, untimed.

    Several works are copies of one on copies of its data: where weights are to be cold they are called in turn.
    """

    once: bool

    def __call__(self, candidate: Works, reference: Works, device: str, plan: Plan | None = None) -> None:
        """Time both, or run both once."""


def warm_up(candidate: Work, reference: Work, device: str) -> Plan:
    """Run both in turn until warm, and plan rounds long against the clock from their last, warm times."""
    clock = synchronised(time.perf_counter, device)
    start = clock()
    times: list[list[float]] = [[], []]
    while clock() - start < WARM_UP_SECONDS or len(times[0]) < 2:
        for work, seen in zip((candidate, reference), times, strict=True):
            begin = clock()
            work()
            seen.append(clock() - begin)
    own, dense = (min(seen[len(seen) // 2 :]) for seen in times)
    return plan_for(own, dense)


def plan_for(own: float, dense: float) -> Plan:
    """Return the plan for works of `own` and `dense` seconds a call: alike for works alike, or the plan itself would differ."""
    loops, dense_loops = (max(1, math.ceil(ROUND_SECONDS / max(one, 1e-9))) for one in (own, dense))
    settles = [
        0 if one > SETTLED_SECONDS else min(SETTLE_CALLS, math.ceil(SETTLE_SECONDS / max(one, 1e-9))) for one in (own, dense)
    ]
    if max(own, dense) < ALIKE * min(own, dense):
        loops = dense_loops = max(loops, dense_loops)
        settles = [max(settles)] * 2
    settle, dense_settle = settles
    return Plan(loops, dense_loops, settle, dense_settle, seconds=own, dense_seconds=dense)


class _Arm:
    """One of the two works, and what its rounds took."""

    def __init__(self, work: Work, loops: int, settle: int, seconds: float) -> None:
        """Take so many calls a round, and so many untimed ones where the other has run last; `seconds` is what one takes."""
        self.work, self.loops, self.settle, self.seconds = work, loops, settle, seconds
        self.queueing = getattr(work, "queueing", 0.0)  # seconds a call, by the least that was seen
        self.took: list[Took] = []

    def expected(self, rounds: int, *, is_first: bool) -> float:
        """Return the seconds that a turn takes, by the shortest that is known of a call; 0 where nothing is."""
        known = [seconds for seconds in (self.seconds, *(one.seconds for one in self.took)) if seconds]
        return (self.settle * is_first + self.loops * rounds) * min(known, default=0.0)

    def turn(self, rounds: int, device: str, timer: Timer, evict: Work | None, *, is_first: bool) -> None:
        """Time so many rounds; where they are the first since the other arm's, settle before."""
        if is_first and self.settle:
            begin = time.perf_counter()
            for _ in range(self.settle):
                self.work()
            seen = (time.perf_counter() - begin) / self.settle
            self.queueing = min(self.queueing or seen, seen)
        for _ in range(rounds):
            self.took.append(time_round(self.work, self.loops, device, timer, evict, self.queueing))


def _is_over(pairs: Race, plan: Plan, rounds: int, patience: Patience, spent: float, before: Usage) -> bool:
    if plan.pairs:
        return len(pairs.seconds) >= plan.pairs
    if len(pairs.seconds) % (2 * rounds):
        return False  # each arm is to go first as often as the other
    if patience.is_over(pairs, spent):
        return True
    # What waits for its own threads has waits in all its rounds, and they count.
    is_disturbed = len(pairs.undisturbed) < len(pairs.seconds)
    return is_disturbed and patience.is_over(pairs.as_if_alone, spent) and before.waited_for_itself(Usage.now())


def _go_on(pairs: Race, plan: Plan, own: _Arm, turn: Callable[[], None]) -> None:
    """Let the candidate take turns alone for as long as the reference took longer; it ends where the candidate diverges."""
    told = pairs.mended
    left, last, shortest = sum(told.dense_seconds) - sum(told.seconds), told.seconds[-1], min(told.seconds)
    for _ in range(plan.beyond):
        if shortest > left:
            return
        try:
            turn()
        except DivergedError:  # what it came to until then is whole
            return
        plan.after()
        if own.took[-1].waited <= DISTURBED:  # what was disturbed counts as the one before
            last = own.took[-1].seconds
        left, shortest = left - last, min(shortest, last)


def race(
    candidate: Work,
    reference: Work,
    device: str,
    plan: Plan | None = None,
    timer: Timer = time.perf_counter,
    patience: Patience = PATIENCE,
    evict: Work | None = None,
    *,
    is_alone: bool = True,
    cores: Cores | None = None,
) -> Race:
    """Time `candidate` and `reference` in interleaved pairs, in the order A B B A, and return the pairs.

    Where both settle, each has two rounds in its turn: its first makes a pair with the other's first, its second with the
    other's second. With a `plan` both must be warm already; without one they are warmed up and planned here. Pairs go on until
    there are as many as the plan says or, where it says none, until `patience` is over. `evict` empties the caches before each
    call; then a round is one call, and none of them settles. Where it `is_alone` no longer, by intention, pairs count that are
    disturbed. With `cores`, those of this process's threads are claimed once half of the pairs are disturbed, and what a turn
    takes is then saved up on them before.
    """
    plan = warm_up(candidate, reference, device) if plan is None else plan
    if evict is not None:
        plan = plan._replace(loops=1, dense_loops=1, settle=0, dense_settle=0)
    dense, own = arms = (
        _Arm(reference, plan.dense_loops, plan.dense_settle, plan.dense_seconds),
        _Arm(candidate, plan.loops, plan.settle, plan.seconds),
    )
    rounds = ROUNDS_A_TURN if plan.settle and plan.dense_settle and not plan.pairs else 1
    pairs = Race([], [], waited=(waited := []), dense_waited=(dense_waited := []))
    last: _Arm | None = None
    before, start = Usage.now(), time.perf_counter()

    def take(arm: _Arm, rounds: int) -> None:
        nonlocal last
        is_first, last = arm is not last, arm
        if cores is not None and cores.are_claimed:
            cores.save_up(arm.expected(rounds, is_first=is_first))
        arm.turn(rounds, device, timer, evict, is_first=is_first)

    while not _is_over(pairs, plan, rounds, patience, time.perf_counter() - start, before):
        is_turned = len(pairs.seconds) % (2 * rounds) != 0
        for arm in reversed(arms) if is_turned != plan.is_reversed else arms:
            take(arm, rounds)
        for one, other in zip(own.took[-rounds:], dense.took[-rounds:], strict=True):
            pairs.seconds.append(one.seconds)
            pairs.dense_seconds.append(other.seconds)
            waited.append(one.waited * is_alone)
            dense_waited.append(other.waited * is_alone)
        is_disturbed = 2 * len(pairs.undisturbed) <= len(pairs.seconds)
        if cores is not None and not cores.are_claimed and is_disturbed and not before.waited_for_itself(Usage.now()):
            cores.claim()
        plan.after()
    if plan.beyond:
        _go_on(pairs.as_if_alone if before.waited_for_itself(Usage.now()) else pairs, plan, own, lambda: take(own, 1))
    later = own.took[len(pairs.seconds) :]
    pairs = pairs._replace(later=[one.seconds for one in later], later_waited=[one.waited * is_alone for one in later])
    timed = sum([*pairs.seconds, *pairs.later]) * plan.loops * calls_of(candidate)
    timed += sum(pairs.dense_seconds) * plan.dense_loops * calls_of(reference)
    if before.waited_for_itself(Usage.now()):
        pairs = pairs.as_if_alone
    in_pairs = [arm.took[: len(pairs.seconds)] for arm in arms]
    dense_host, host = ([one.host_seconds for one in took if one.host_seconds is not None] for took in in_pairs)
    return pairs._replace(timed=timed, host_seconds=host, dense_host_seconds=dense_host)
