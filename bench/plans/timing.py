"""Arms of a model in, what a pass through each takes out: all called in turn, each once the caches hold its own data.

Whatever the machine does meanwhile it does to all of them.
"""

import math
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bench.engine.pairing import SETTLED_SECONDS, Patience, race, warm_up
from bench.engine.rounds import time_round
from bench.plans.arms import Arm
from bench.plans.rivals import RIVALS
from bench.runs.outcome import Race
from sparse_models.kernels.contention import DISTURBED, Usage

ROUND_SECONDS = 1e-3
# An arm is called untimed before its round. What fits the last cache, after an arm that does not, is back in it only after a
# dozen passes: on Zen 5, with three a sparse model beside a dense one of 37 MiB took 0.16 to 0.23 ms, from process to process;
# with ten to thirty 0.15 to 0.16 in seven of nine. A long call refills them in a small part of its own time.
SETTLE_SECONDS, LEAST_SETTLING, MOST_SETTLING = 3e-3, 3, 20
# Undisturbed rounds of each arm that are waited for, up to so many times as long; those without which nothing is said, and how
# many of a large model's are tried for them.
LEAST_ROUNDS, LONGER, LEAST_COUNTED, MOST_TRIED = 5, 4, 3, 6
RACING_SECONDS = 0.3


class Passes(NamedTuple):
    """Seconds of a pass through a model, and of each of its layers in it."""

    whole: float
    layers: Sequence[float]

    @property
    def rest(self) -> float:
        """Seconds of all else."""
        return self.whole - sum(self.layers)


def rounds(built: Mapping[str, Arm], seconds: float) -> dict[str, Passes]:
    """Return the median passes of arms over those that nothing disturbed; none where some arm but a rival has too few."""
    calls = {name: seconds_of_a_call(arm) for name, arm in built.items()}
    found: dict[str, list[Passes]] = {name: [] for name in built}
    clean: dict[str, list[Passes]] = {name: [] for name in built}
    before, start, order, needed = Usage.now(), time.perf_counter(), list(built), built.keys() - RIVALS.keys()
    while True:
        spent, least, rounds = time.perf_counter() - start, min(len(clean[name]) for name in needed), len(found[order[0]])
        is_enough = least >= LEAST_COUNTED or rounds >= MOST_TRIED
        if spent > seconds and (least >= LEAST_ROUNDS or (spent > LONGER * seconds and is_enough)):
            break
        random.SystemRandom().shuffle(order)
        for name in order:
            arm, loops = built[name], math.ceil(ROUND_SECONDS / calls[name])
            for _ in range(settling(calls[name])):
                arm()
            arm.lap()
            took = time_round(arm, loops, "cpu")
            passes = Passes(took.seconds, [own / loops for own in arm.lap()])
            found[name].append(passes)
            clean[name] += [passes] * (took.waited <= DISTURBED)
    if before.waited_for_itself(Usage.now()):  # and then all count
        clean = found
    counted = {name: _middle(passes) for name, passes in clean.items() if len(passes) >= LEAST_COUNTED}
    return counted if needed <= counted.keys() else {}


def settling(seconds: float) -> int:
    """Return the untimed calls after which the caches hold what a call of so many seconds reads."""
    if seconds > SETTLED_SECONDS:
        return 0
    return min(MOST_SETTLING, max(LEAST_SETTLING, math.ceil(SETTLE_SECONDS / seconds)))


def seconds_of_a_call(arm: Arm) -> float:
    """Return the seconds of one call, after another."""
    arm()
    begin = time.perf_counter()
    arm()
    return max(1e-9, time.perf_counter() - begin)


def _middle(passes: Sequence[Passes]) -> Passes:
    by_layer = zip(*(one.layers for one in passes), strict=True)
    return Passes(statistics.median(one.whole for one in passes), [statistics.median(layer) for layer in by_layer])


def raced(arm: Arm, dense: Arm) -> Race:
    """Return the pairs of an arm against dense, each timed as in `rounds`."""
    plan = warm_up(arm, dense, "cpu")
    settle, dense_settle = (settling(seconds_of_a_call(one)) for one in (arm, dense))
    plan = plan._replace(settle=settle, dense_settle=dense_settle)
    return race(arm, dense, "cpu", plan, patience=Patience(RACING_SECONDS))
