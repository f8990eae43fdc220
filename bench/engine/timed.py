"""The two works of a case in, their pairs out, timed in the case's regime; what a body in a fresh process times with."""

import contextlib
import random
import time
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any

import torch

from bench.cases import Case
from bench.engine.pairing import WARM_UP_SECONDS, Patience, Plan, plan_for, race, warm_up
from bench.engine.rounds import Timer, calls_of, evictor
from bench.grids import BUSY, COLD_REPLAY, REPLAYED
from bench.machine.cores import TEAMS
from bench.machine.energy import joules
from bench.machine.neighbours import neighbours
from bench.runs.outcome import Race
from bench.runs.row import Facts
from bench.works.once_per_run import KNOWN, find_once
from bench.works.replays import AsLaunched, Replay, Work, Works, captured, in_turn, listed
from sparse_models.errors import InputError
from sparse_models.kernels.cpu.bounds.handover import handover_seconds

REPLAYED_AS = "as a graph"  # what the facts say of a work that is replayed
BUSY_ROUNDS = 50  # as long as other rounds: a neighbour has the core for some milliseconds at a time, and every round meets it
BUSY_SECONDS = 0.5  # in the rounds of a visit, at least
SHARED = "cores are shared"  # what processes know of the machine: whether their threads had to wait for others
SAVED_UP = "seconds saved up"  # for which threads waited before rounds, over the whole run
FILLING = 20  # calls in a replay, beside which it does not matter what the first of them finds in the caches


class Timed:
    """A Racer that keeps what it timed, in the regime of its case."""

    once = False

    def __init__(self, case: Case, timer: Timer, patience: Patience, *, energy: bool = False) -> None:
        """Time by `timer` until `patience` is over; with `energy`, measure that too, once a run."""
        self.case, self.timer, self.patience, self.energy = case, timer, patience, energy
        self.race = Race([], [])
        self.raced = 0.0
        self.facts: Facts = {}  # how the works were launched
        self.is_spoiled = False  # whether the process should end: see `captured`
        self.cores = TEAMS if case.device == "cpu" and case.regime != BUSY else None
        if self.cores and KNOWN.get(SHARED):
            TEAMS.claim()  # building and checking, too, take ten times as long with two threads on one core

    def __call__(self, candidate: Works, reference: Works, device: str, plan: Plan | None = None) -> None:
        """Time both works in interleaved pairs."""
        start = time.perf_counter()
        before = self._handover()
        with precision_of(self.case.dtype):
            self._race(candidate, reference, device, plan)
        longest = max(before, self._handover())  # it may have changed meanwhile
        self.race = self.race._replace(handovers=[longest] if longest else [])
        self.raced = time.perf_counter() - start
        if self.cores:
            if TEAMS.waited:
                KNOWN[SAVED_UP] = KNOWN.get(SAVED_UP, 0.0) + TEAMS.waited
            TEAMS.look()
            if KNOWN.get(SHARED, False) != TEAMS.are_claimed:
                KNOWN[SHARED] = TEAMS.are_claimed

    def _handover(self) -> float:
        # Beside other processes it would say how long a thread waits for its core, and take as long.
        return handover_seconds() if self.cores and not self.cores.are_claimed else 0.0

    def _race(self, candidate: Works, reference: Works, device: str, plan: Plan | None) -> None:
        own, dense = (as_regime(arm, self.case.regime) for arm in (candidate, reference))
        if self.case.regime in REPLAYED:
            own, dense = self._replayed("", own), self._replayed("dense_", dense)
        if self.cores and TEAMS.are_claimed:
            TEAMS.save_up(WARM_UP_SECONDS)  # or the first process would plan by calls that were disturbed
        evict = evictor(device) if self.case.regime == "cold" else None
        own_work, dense_work = in_turn(own), in_turn(dense)
        known = None
        if plan is None:
            # Another clock may be too coarse to plan by.
            known = f"seconds {self.case}" if self.timer is time.perf_counter else None
            plan = _planned(own_work, dense_work, device, known)
        if self.case.regime == BUSY:
            plan = plan._replace(loops=plan.loops * BUSY_ROUNDS, dense_loops=plan.dense_loops * BUSY_ROUNDS)
            patience = self.patience._replace(seconds=max(self.patience.seconds, BUSY_SECONDS))
            with neighbours(max(1, self.case.threads // 2)):
                self.race = race(own_work, dense_work, device, plan, self.timer, patience, is_alone=False)
        else:
            self.race = race(own_work, dense_work, device, plan, self.timer, self.patience, evict, cores=self.cores)
        if known is not None:
            shortest = [min(self.race.seconds), min(self.race.dense_seconds)]
            KNOWN[known] = [min(pair) for pair in zip(KNOWN.get(known, shortest), shortest, strict=True)]
        if self.energy and known is not None:
            for name, work in (("joules", own_work), ("dense_joules", dense_work)):
                taken = find_once(f"{name} {self.case}", lambda work=work: joules(work, device))  # type: ignore[misc]
                self.facts |= {} if taken is None else {name: taken / calls_of(work)}

    def _replayed(self, arm: str, works: list[Work]) -> list[Work]:
        """Return the works as one replay where they can be captured, as they are where not; the facts say which, and why."""
        # What stands against it lies in the code of a layer, and not in its size.
        key = f"not captured {arm or self.case.layer} {self.case.update} {self.case.op} {self.case.dtype}"
        replay = None
        if key not in KNOWN and not isinstance(works[0], AsLaunched):
            try:
                replay = captured_once(tuple(works)) if arm else captured(works)
            except InputError as error:
                KNOWN[key], self.is_spoiled = str(error), True  # no later process tries again
        self.facts[f"{arm}launched"] = REPLAYED_AS if replay else "by the host"
        if key in KNOWN:
            self.facts[f"{arm}not_captured"] = KNOWN[key]
        return [replay] if replay else works


def _planned(own: Work, dense: Work, device: str, known: str | None) -> Plan:
    """Return the plan of a visit to two works that are warm then; what calls take is `known` by this name, if at all.

    How long a call takes the first process finds out, and what the shortest rounds so far say is passed on. In the others the
    calls by which each turn settles make it warm, or one call where rounds are so long as to do without. Which work is timed
    first is drawn, each time anew: its first rounds are slower by a percent or two.
    """
    calls = [calls_of(own), calls_of(dense)]
    if known in KNOWN:
        plan = plan_for(*(seconds * count for seconds, count in zip(KNOWN[known], calls, strict=True)))
    else:
        plan = warm_up(own, dense, device)
    plan = plan._replace(is_reversed=bool(random.SystemRandom().getrandbits(1)))
    if min(calls) >= FILLING:
        return plan._replace(settle=0, dense_settle=0)
    first = [own] * (not plan.settle) + [dense] * (not plan.dense_settle)
    for work in reversed(first) if plan.is_reversed else first:
        work()  # what is timed first is called last: see `SETTLED_SECONDS`
    return plan


@lru_cache(maxsize=8)
def captured_once(works: tuple[Work, ...]) -> Replay:
    """Return the replay of these very works, captured when they are first raced: those of dense come again and again."""
    return captured(works)


def as_regime(works: Works, regime: str) -> list[Work]:
    """Return the works that a regime calls: all copies of one in turn where weights are to be cold, else the first."""
    return listed(works) if regime == COLD_REPLAY else listed(works)[:1]


@contextlib.contextmanager
def precision_of(dtype: str) -> Iterator[None]:
    """Have a GPU compute products of float32 from all of its bits, or in TensorFloat-32 where that is asked for."""
    products: Any = torch.backends.cuda.matmul
    before, products.fp32_precision = products.fp32_precision, "tf32" if dtype == "tf32" else "ieee"
    try:
        yield
    finally:
        products.fp32_precision = before


@cache
def _side_stream() -> torch.cuda.Stream:
    return torch.cuda.Stream()


@contextlib.contextmanager
def own_stream(device: str) -> Iterator[None]:
    """Have all that a case does on a GPU queued on a stream beside the default one, on which nothing can be captured."""
    if torch.device(device).type != "cuda":
        yield
        return
    torch.cuda.synchronize()
    with torch.cuda.stream(_side_stream()):
        yield
    torch.cuda.synchronize()
