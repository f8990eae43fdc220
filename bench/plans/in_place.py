"""What a fresh process does for a plan: it builds the arms of a model and calls them in turn; plain figures out.

Each arm is called until the caches hold its own data, and then timed: in turn, so that whatever the machine does meanwhile it
does to all of them.
"""

import math
import os
import random
import signal
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from bench.engine.pairing import Patience, race, warm_up
from bench.engine.rounds import time_round
from bench.engine.worker import failure_of, limit_threads
from bench.plans.arms import CALLED, DENSE, PLAIN, Arm, Kind, Model, Swap
from bench.plans.rivals import RIVALS
from bench.works.tuning import until_undisturbed
from bench.works.whole_models import bytes_of
from sparse_models.errors import GateError, InputError
from sparse_models.kernels import choice
from sparse_models.kernels.contention import DISTURBED, Usage

ROUND_SECONDS, SETTLE_SECONDS, MOST_SETTLING = 1e-3, 5e-4, 3
# Undisturbed rounds of each arm that are waited for, up to so many times as long; those without which nothing is said, and how
# many of a large model's are tried for them.
LEAST_ROUNDS, LONGER, LEAST_COUNTED, MOST_TRIED = 5, 4, 3, 6
RACING_SECONDS = 0.3
# A rival that takes so many times as long as the model in each of some calls is not timed: it would take the time of all.
SLOWEST, CALLS_TO_TELL = 10.0, 3
PLANNED = "planned"  # the arm of a model as a plan makes it


class Passes(NamedTuple):
    """Seconds of a pass through a model, and of each of its layers in it."""

    whole: float
    layers: Sequence[float]

    @property
    def rest(self) -> float:
        """Seconds of all else."""
        return self.whole - sum(self.layers)


def prepare(source: Sequence[str], op: str, kinds: Sequence[Sequence[Any]], threads: int) -> Iterator[dict[str, Any]]:
    """Say which kinds the layers of a model can be made, what each keeps and stores, and the variants of our own kernels."""
    limit_threads(threads)
    model = Model(*source)
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

    def try_out() -> None:
        model.pass_gate(kind, learning=op == "step")
        until_undisturbed(Arm(model.sparse(kind), op))

    return _failure(try_out)


def _failure(tried: Callable[[], object]) -> str | None:
    """Return what a call raises, in a sentence; None where it raises nothing."""
    try:
        tried()
    except (GateError, InputError) as error:
        return str(error)
    except Exception as error:
        return failure_of(error)
    return None


def check_rival(source: Sequence[str], op: str, name: str, threads: int, seconds: float) -> Iterator[dict[str, Any]]:
    """Say why dense cannot be run in another way, or nothing; a process that takes longer than `seconds` is ended."""
    limit_threads(threads)
    signal.setitimer(signal.ITIMER_REAL, seconds)  # a compiler takes as long as it likes
    why = _failure(lambda: RIVALS[name].check(Model(*source), op))
    signal.setitimer(signal.ITIMER_REAL, 0)
    yield {"why": why}


def measure(
    source: Sequence[str],
    op: str,
    kinds: Sequence[Sequence[Any]],
    rivals: Sequence[str],
    threads: int,
    choices: Mapping[str, Any],
    patience: float,
    seconds: float,
    is_given: bool,  # noqa: FBT001  # it comes as one of a list
) -> Iterator[dict[str, Any]]:
    """Say the seconds of a pass and of each layer that can be sparse, for dense, for its rivals and for each kind.

    Masks that are given count where it `is_given`. Nothing is said where the machine was disturbed all along. Each `source`
    here is a model's name and a file of masks. A rival that is not ready after `patience` seconds is left out.
    """
    limit_threads(threads)
    choice.hold(choices)
    model = Model(*source)
    built = {PLAIN: Arm(model.example.copied, op), DENSE: Arm(model.called, op, model.names)}
    if model.has_fast_path:
        built[CALLED] = Arm(model.called, op)
    ready, left_out = _ready({name: RIVALS[name].in_place for name in rivals}, model, op, built[PLAIN], patience)
    built |= ready
    for kind in [Kind(*one) for one in kinds]:
        built[str(kind)] = Arm(model.sparse(kind, is_given=is_given), op, model.names)
    yield {"passes": _rounds(built, seconds), "left_out": left_out}


def _ready(
    rivals: Mapping[str, Callable[[Model, str], Arm]], model: Model, op: str, dense: Arm, patience: float
) -> tuple[dict[str, Arm], dict[str, str]]:
    """Return the arms of rivals, each called before, and why there is none of others: what fails takes nothing with it."""
    most = SLOWEST * _seconds_of_a_call(dense)
    built = {name: _arm_or_why_not(build, model, op, most, patience) for name, build in rivals.items()}
    ready = {name: one for name, one in built.items() if isinstance(one, Arm)}
    return ready, {name: one for name, one in built.items() if isinstance(one, str)}


def _arm_or_why_not(build: Callable[[Model, str], Arm], model: Model, op: str, most: float, patience: float) -> Arm | str:
    try:
        with _bounded(patience), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's compiler uses what PyTorch says not to use
            arm = build(model, op)
            seconds = (_seconds_of_a_call(arm) for _ in range(CALLS_TO_TELL))  # one may have been disturbed
            least = next((one for one in seconds if one <= most), None)
    except TimeoutError:
        return f"expected it ready within {patience:.1f} s in each process, got no end by then; raise --budget"
    except Exception as error:
        return failure_of(error)
    if least is None:
        return f"expected no more than {most:.2g} s a call, {SLOWEST:g} times dense's, got more in each of several; leave it"
    return arm


@contextmanager
def _bounded(seconds: float) -> Iterator[None]:
    """Raise TimeoutError where what is done takes longer."""

    def end(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _rounds(built: Mapping[str, Arm], seconds: float) -> dict[str, Passes]:
    """Return the median passes of arms over those that nothing disturbed; none where some arm but a rival has too few."""
    calls = {name: _seconds_of_a_call(arm) for name, arm in built.items()}
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
            for _ in range(min(MOST_SETTLING, math.ceil(SETTLE_SECONDS / calls[name]))):
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


def _seconds_of_a_call(arm: Arm) -> float:
    arm()
    begin = time.perf_counter()
    arm()
    return max(1e-9, time.perf_counter() - begin)


def _middle(passes: Sequence[Passes]) -> Passes:
    by_layer = zip(*(one.layers for one in passes), strict=True)
    return Passes(statistics.median(one.whole for one in passes), [statistics.median(layer) for layer in by_layer])


def race_whole(
    source: Sequence[str],
    op: str,
    swaps: Sequence[Sequence[Any]],
    rivals: Sequence[str],
    threads: int,
    choices: Mapping[str, Any],
    patience: float,
) -> Iterator[dict[str, Any]]:
    """Say the pairs of the model as a plan makes it, and of its rivals, against the model as it is; the bytes of the plan's."""
    limit_threads(threads)
    choice.hold(choices)
    model, stored, own = Model(*source), None, dict[str, Arm]()
    if swaps:
        example = model.example.copied
        for swap in swaps:
            Swap(*swap).carry_out(example.module, model.given)
        own[PLANNED], stored = Arm(example, op), bytes_of(example.module)
    dense = Arm(model.example.copied, op)
    ready, left_out = _ready({name: RIVALS[name].whole for name in rivals}, model, op, dense, patience)
    own |= ready
    races = {
        name: race(arm, dense, "cpu", warm_up(arm, dense, "cpu"), patience=Patience(RACING_SECONDS))
        for name, arm in own.items()
    }
    yield {"races": races, "stored": stored, "left_out": left_out}


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
    "check_rival": check_rival,
    "measure": measure,
    "race_whole": race_whole,
}
