"""What a fresh process does for a plan: it builds the arms of a model and calls them in turn; plain figures out.

Each arm is called until the caches hold its own data, and then timed: in turn, so that whatever the machine does meanwhile it
does to all of them.
"""

import contextlib
import math
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from bench.engine.pairing import Patience, race, warm_up
from bench.engine.rounds import time_round
from bench.engine.worker import failure_of, limit_threads
from bench.machine.facts import has_bfloat16
from bench.models.loading import load
from bench.plans.arms import BFLOAT16, CALLED, DENSE, PLAIN, Arm, Kind, Model, Swap, bytes_of
from bench.works.tuning import until_undisturbed
from sparse_models.errors import GateError, InputError
from sparse_models.kernels import choice
from sparse_models.kernels.contention import DISTURBED, Usage

ROUND_SECONDS, SETTLE_SECONDS, MOST_SETTLING = 1e-3, 5e-4, 3
# Undisturbed rounds of each arm that are waited for, up to so many times as long; and those without which nothing is said.
LEAST_ROUNDS, LONGER, LEAST_COUNTED = 5, 4, 3
RACING_SECONDS = 0.3


class Passes(NamedTuple):
    """Seconds of a pass through a model, and of each of its layers in it."""

    whole: float
    layers: Sequence[float]

    @property
    def rest(self) -> float:
        """Seconds of all else."""
        return self.whole - sum(self.layers)


def prepare(target: str, op: str, kinds: Sequence[Sequence[Any]], threads: int) -> Iterator[dict[str, Any]]:
    """Say which kinds the layers of a model can be made, what each keeps and stores, and the variants of our own kernels."""
    limit_threads(threads)
    model = Model(target)
    stored, kept, left_out = {DENSE: bytes_of(model.example.module)}, dict[str, list[float]](), dict[str, str]()
    for kind in [Kind(*one) for one in kinds]:
        why = _why_not(model, kind, op)
        if why is None:
            stored[str(kind)], kept[str(kind)] = bytes_of(model.sparse(kind).module), model.kept(kind)
        else:
            left_out[str(kind)] = why
    yield {"stored": stored, "kept": kept, "left_out": left_out, "choices": choice.plain(choice.in_use())}


def _why_not(model: Model, kind: Kind, op: str) -> str | None:
    """Return why layers cannot be of a kind; None where they can, the variants of whose kernels are then known."""
    try:
        model.pass_gate(kind, learning=op == "step")
        until_undisturbed(Arm(model.sparse(kind), op))
    except (GateError, InputError) as error:
        return str(error)
    except Exception as error:
        return failure_of(error)
    return None


def measure(
    target: str, op: str, kinds: Sequence[Sequence[Any]], threads: int, seconds: float, choices: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Say the seconds of a pass and of each layer that can be sparse, for dense and for each kind.

    Of kinds at another sparsity than the first, the masks that a pruned model has are none. Nothing is said where the machine
    was disturbed all along.
    """
    limit_threads(threads)
    choice.hold(choices)
    model = Model(target)
    built = {PLAIN: Arm(model.example.copied, op), DENSE: Arm(model.called, op, model.names)}
    if model.has_fast_path:
        built[CALLED] = Arm(model.called, op)
    if has_bfloat16():
        with contextlib.suppress(Exception):  # a rival alone, and not every model can be of 16 bits
            short = Arm(model.called.placed("cpu", torch.bfloat16), op, model.names)
            short()
            built[BFLOAT16] = short
    for kind in [Kind(*one) for one in kinds]:
        built[str(kind)] = Arm(model.sparse(kind, is_given=kind.sparsity == kinds[0][1]), op, model.names)
    yield {"passes": _rounds(built, seconds)}


def _rounds(built: Mapping[str, Arm], seconds: float) -> dict[str, Passes]:
    """Return the median passes of arms over those that nothing disturbed; none where some arm has too few."""
    calls = {name: _seconds_of_a_call(arm) for name, arm in built.items()}
    found: dict[str, list[Passes]] = {name: [] for name in built}
    clean: dict[str, list[Passes]] = {name: [] for name in built}
    before, start, order = Usage.now(), time.perf_counter(), list(built)
    while True:
        spent, least = time.perf_counter() - start, min(map(len, clean.values()))
        if spent > seconds and (least >= LEAST_ROUNDS or spent > LONGER * seconds):
            break
        random.SystemRandom().shuffle(order)
        for name in order:
            arm, loops = built[name], math.ceil(ROUND_SECONDS / calls[name])
            for _ in range(min(MOST_SETTLING, math.ceil(SETTLE_SECONDS / calls[name]))):
                arm()
            arm.lap()
            took = time_round(arm, loops, "cpu")
            passes = Passes(took.seconds, [own / loops for own in arm.lap()])
            found[name].append(passes)
            clean[name] += [passes] * (took.waited <= DISTURBED)
    if before.waited_for_itself(Usage.now()):  # and then all count
        clean = found
    return {name: _middle(passes) for name, passes in clean.items()} if all(map(_are_enough, clean.values())) else {}


def _are_enough(passes: Sequence[Passes]) -> bool:
    return len(passes) >= LEAST_COUNTED


def _seconds_of_a_call(arm: Arm) -> float:
    arm()
    begin = time.perf_counter()
    arm()
    return max(1e-9, time.perf_counter() - begin)


def _middle(passes: Sequence[Passes]) -> Passes:
    by_layer = zip(*(one.layers for one in passes), strict=True)
    return Passes(statistics.median(one.whole for one in passes), [statistics.median(layer) for layer in by_layer])


def race_whole(
    target: str, op: str, swaps: Sequence[Sequence[Any]], threads: int, choices: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Say the pairs of the model as a plan makes it against the model as it is, and the bytes that it stores."""
    limit_threads(threads)
    choice.hold(choices)
    example = load(target).copied
    for swap in swaps:
        Swap(*swap).carry_out(example)
    own, dense = Arm(example, op), Arm(load(target).copied, op)
    pairs = race(own, dense, "cpu", warm_up(own, dense, "cpu"), patience=Patience(RACING_SECONDS))
    yield {"race": pairs, "stored": bytes_of(example.module)}


def serve(function: str, arguments: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """Yield the process and what a function of this file says, or why it could not."""
    yield {"process": os.getpid()}
    try:
        yield from FUNCTIONS[function](*arguments)
    except InputError as error:
        yield {"failure": str(error)}
    except Exception as error:
        yield {"failure": failure_of(error)}


FUNCTIONS: dict[str, Callable[..., Iterator[dict[str, Any]]]] = {
    "prepare": prepare,
    "measure": measure,
    "race_whole": race_whole,
}
