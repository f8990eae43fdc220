"""What a fresh process does for a plan: it builds the arms of a model and has them timed; plain figures out."""

import os
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from bench.engine.worker import failure_of, limit_threads
from bench.plans import timing
from bench.plans.arms import CALLED, DENSE, PLAIN, Arm, Kind, Model, Swap, arm_of
from bench.plans.rivals import RIVALS
from bench.plans.timing import seconds_of_a_call
from bench.works.tuning import until_undisturbed
from bench.works.whole_models import bytes_of
from sparse_models.errors import GateError, InputError
from sparse_models.kernels import choice

# A rival that takes so many times as long as the model in each of some calls is not timed: it would take the time of all.
SLOWEST, CALLS_TO_TELL = 10.0, 3
PLANNED = "planned"  # the arm of a model as a plan makes it


def prepare(source: Sequence[str], op: str, kinds: Sequence[Sequence[Any]], threads: int) -> Iterator[dict[str, Any]]:
    """Say which kinds the layers of a model can be made, what each keeps and stores, and the variants of our own kernels."""
    limit_threads(threads)
    model = Model(*source)
    stored, kept, left_out = {DENSE: bytes_of(model.example.module)}, dict[str, list[float]](), dict[str, str]()
    for kind in [Kind(*one) for one in kinds]:
        why = _why_not(model, kind, op)
        if why is None:
            stored[str(kind)], kept[str(kind)] = bytes_of(model.sparse(model.all_of(kind)).module), model.kept(kind)
        else:
            left_out[str(kind)] = why
    yield {"stored": stored, "kept": kept, "left_out": left_out, "choices": choice.plain(choice.in_use())}


def _why_not(model: Model, kind: Kind, op: str) -> str | None:
    """Return why layers cannot be of a kind; None where they can, the variants of whose kernels are then known."""

    def try_out() -> None:
        model.pass_gate(kind, learning=op == "step")
        until_undisturbed(Arm(model.sparse(model.all_of(kind)), op))

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
    plans: Sequence[Sequence[Sequence[Any] | None]],
    rivals: Sequence[str],
    threads: int,
    choices: Mapping[str, Any],
    patience: float,
    seconds: float,
    is_given: bool,  # noqa: FBT001  # it comes as one of a list
) -> Iterator[dict[str, Any]]:
    """Say the seconds of a pass and of each layer that can be sparse, for dense, for its rivals and for each plan.

    A plan says of each layer that can be sparse what it is to be, and `arm_of` what its arm is called. Masks that are given
    count where it `is_given`. Nothing is said where the machine was disturbed all along. Each `source` here is a model's name
    and a file of masks. A rival that is not ready after `patience` seconds is left out.
    """
    limit_threads(threads)
    choice.hold(choices)
    model = Model(*source)
    built = {PLAIN: Arm(model.example.copied, op), DENSE: Arm(model.called, op, model.names)}
    if model.has_fast_path:
        built[CALLED] = Arm(model.called, op)
    ready, left_out = _ready({name: RIVALS[name].in_place for name in rivals}, model, op, built[PLAIN], patience)
    built |= ready
    for plan in plans:
        chosen = [None if one is None else Kind(*one) for one in plan]
        built[arm_of(chosen)] = Arm(model.sparse(chosen, is_given=is_given), op, model.names)
    yield {"passes": timing.rounds(built, seconds), "left_out": left_out}


def _ready(
    rivals: Mapping[str, Callable[[Model, str], Arm]], model: Model, op: str, dense: Arm, patience: float
) -> tuple[dict[str, Arm], dict[str, str]]:
    """Return the arms of rivals, each called before, and why there is none of others: what fails takes nothing with it."""
    most = SLOWEST * seconds_of_a_call(dense)
    built = {name: _arm_or_why_not(build, model, op, most, patience) for name, build in rivals.items()}
    ready = {name: one for name, one in built.items() if isinstance(one, Arm)}
    return ready, {name: one for name, one in built.items() if isinstance(one, str)}


def _arm_or_why_not(build: Callable[[Model, str], Arm], model: Model, op: str, most: float, patience: float) -> Arm | str:
    try:
        with _bounded(patience), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's compiler uses what PyTorch says not to use
            arm = build(model, op)
            seconds = (seconds_of_a_call(arm) for _ in range(CALLS_TO_TELL))  # one may have been disturbed
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
    races = {name: timing.raced(arm, dense) for name, arm in own.items()}
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
