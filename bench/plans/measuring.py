"""A model's name in, what fresh processes found out of it: which kinds there are, the choice, the whole, and break-evens.

Each part has a share of the budget, and ends sooner where all is decided. Ctrl-C keeps what is known.
"""

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple

from bench.engine.forkserver import ForkServer
from bench.engine.processes import fork_server_of
from bench.models.layers import inspected
from bench.models.loading import load
from bench.plans import in_place
from bench.plans.arms import Choices, Kind, arm_of, exchangeable
from bench.plans.asked import Asked
from bench.plans.candidates import Measured, best_plan, candidates, may_pay
from bench.plans.plan import Plan, chosen, plan_of
from bench.plans.rivals import RIVALS
from bench.plans.timing import Passes
from bench.runs.outcome import Race
from bench.works.compiled import COMPILED
from sparse_models.errors import InputError
from sparse_models.layers import LAYERS

# The first that choose find what plans there may be, the others which is best; of those that tell, as of those that race the
# whole, so many decide however small an effect is.
FIRST_CHOOSING, CHOOSING, TELLING, WHOLE_PROCESSES, EVEN_PROCESSES = 2, 5, 9, 12, 6
CHOOSING_SHARE, TELLING_SHARE, WHOLE_SHARE = 0.25, 0.6, 0.85  # of the time left once all is built, when a part ends
RIVAL_SHARE = 0.2  # of the time left, the most that one is waited for: code may take long to compile, and is kept on disk
LOADING_SHARE = 0.1  # of all the time, the most that one is waited for in each later process, which finds that code on disk
SECONDS = 0.4  # in the rounds of a process
MIXED, LATER = "each plan of several kinds", "all that is measured later"  # where they are left out
OTHER_SPARSITIES = (0.5, 0.8, 0.95)  # beside the one asked for, between which the break-even is looked for


class Run:
    """What is being found out, process by process."""

    def __init__(self, asked: Asked, fork_server: ForkServer, show: Callable[[str], None]) -> None:
        """Start with nothing; the time runs from here on."""
        self.asked, self.fork_server, self.show = asked, fork_server, show
        self.start = self.built = time.monotonic()
        self.disturbed = 0  # processes that had nothing to say
        self.last = 0.0  # seconds that the last process took
        self.layers = exchangeable(*asked.source)
        self.ready: Mapping[str, Any] = {}
        self.choosing, self.telling = list[Mapping[str, Passes]](), list[Mapping[str, Passes]]()
        self.plans: list[Choices] = []  # that are measured whole
        self.rivals: list[str] = []  # that there are
        self.left_out: dict[str, str] = {}  # why, by kind or rival
        self.races: list[Mapping[str, Race]] = []
        self.evens: list[Mapping[str, Passes]] = []
        self.swapped_bytes: int | None = None
        self.compiles = False  # from when on processes are forked from one that has the compiler

    def call(self, function: str, *arguments: Any) -> dict[str, Any]:
        """Return what a fresh process says of a function of `in_place`; raises InputError where it could not."""
        began, what = time.monotonic(), dict[str, Any]()
        asked = {"cases": [], "call": [in_place.__name__, "serve", [function, arguments]], "compiles": self.compiles}
        for said in _with_end(self.fork_server.run(asked)):
            what |= said
        self.last = time.monotonic() - began
        if "failure" in what:
            raise InputError(what["failure"])
        return what

    def timed(self, function: str, what: Sequence[Any], rivals: Sequence[str], *more: Any) -> dict[str, Any]:
        """Return what a process says that may time rivals; those that fail, or with which it fails, are left out for good."""
        asked, patience = self.asked, max(1.0, LOADING_SHARE * self.asked.budget)
        common = asked.source, asked.op, what, rivals, asked.threads, self.ready["choices"], patience
        try:
            said = self.call(function, *common, *more)
        except InputError as error:
            if not rivals:
                raise
            said = {"left_out": dict.fromkeys(rivals, str(error))}
        self.left_out |= said["left_out"]
        self.rivals = [name for name in self.rivals if name not in self.left_out]
        return said

    def has_time(self, share: float) -> bool:
        """Tell whether another process like the last ends within a share of the time that was left once all was built."""
        end = self.start + self.asked.budget
        return time.monotonic() + self.last < self.built + share * max(0.0, end - self.built)

    def tell(self, part: str, number: int, of: int) -> None:
        """Show how far a part is."""
        left = max(0.0, self.asked.budget - (time.monotonic() - self.start))
        self.show(f"{part}: process {number + 1} of up to {of}; at most {left:.0f} s left")

    def prepare(self) -> None:
        """Find out which kinds the layers can be, and in which other ways dense can be run."""
        self.show("building the model with each kind of layer")
        asked = self.asked
        self.ready = self.call("prepare", asked.source, asked.op, asked.kinds, asked.threads)
        self.left_out |= self.ready["left_out"]
        if not self.measured.kinds:
            kinds = {why: [kind for kind, own in self.left_out.items() if own == why] for why in self.left_out.values()}
            each = "; ".join(f"{', '.join(own)}: {why}" for why, own in kinds.items())
            raise InputError(f"expected a kind of layer that the model can hold, got none ({each}); name others with --layer")
        for name, rival in RIVALS.items():
            self.show(f"dense {rival.told}")
            why = self._why_not(name)
            if why is None:
                self.rivals.append(name)
            else:
                self.left_out[name] = why
        self.built = time.monotonic()

    def _why_not(self, rival: str) -> str | None:
        """Return why dense cannot be run in another way, which is found out in a process of its own; None where it can."""
        self.compiles |= rival == COMPILED
        asked = self.asked
        seconds = max(1.0, RIVAL_SHARE * (self.start + asked.budget - time.monotonic()))
        try:
            why: str | None = self.call("check_rival", asked.source, asked.op, rival, asked.threads, seconds)["why"]
        except InputError as error:
            is_late = self.last >= seconds
            return f"expected it ready within {seconds:.0f} s, got no end by then; raise --budget" if is_late else str(error)
        return why

    def choose(self) -> None:
        """Measure all kinds, then the plans that they make, and tell of the best of these until each layer is decided."""
        for number in range(CHOOSING):
            if number and not self.has_time(CHOOSING_SHARE if number > FIRST_CHOOSING else TELLING_SHARE):
                break  # but of a large model, too, plans are measured once
            self.tell("choosing", number, CHOOSING)
            if len(self.choosing) >= FIRST_CHOOSING:
                self.plans = self.plans or candidates(self.measured)
            try:
                self.choosing += self._measure([*self._uniform, *self.plans], [])
            except InputError as error:  # the more copies of a model there are at once, the more memory they take
                if not self.plans:
                    raise
                self.left_out[MIXED], self.plans = str(error), []
                break
        if not self.plans and len(self.layers) > 1:
            self.left_out.setdefault(MIXED, "the time was over before any was measured; raise --budget")
        best = best_plan(self.measured)
        of_best = [[kind] * len(self.layers) for kind in best if kind]  # also a kind that no longer pays by itself
        for number in range(TELLING if self.choosing else 0):
            if (number and not self.has_time(TELLING_SHARE)) or chosen(self.measured).is_decided:
                break
            self.tell("measuring each layer", number, TELLING)
            self.telling += self._measure([*self._uniform, *of_best, best], self.rivals)

    @property
    def _uniform(self) -> list[Choices]:
        """The plans in which all layers are of one kind, for each that may still pay."""
        measured = self.measured
        return [[kind] * len(self.layers) for kind in measured.kinds if may_pay(kind, measured)]

    def race(self) -> None:
        """Race the whole model as it was chosen, and dense in other ways, against the model as it is."""
        swaps = chosen(self.measured).swaps
        for number in range(WHOLE_PROCESSES):
            if not (swaps or self.rivals) or (number and not self.has_time(WHOLE_SHARE)):
                break
            self.tell("the whole model", number, WHOLE_PROCESSES)
            said = self.timed("race_whole", swaps, self.rivals)
            if said.get("races"):
                races = {name: Race(*pairs) for name, pairs in said["races"].items()}
                races = {name: pairs for name, pairs in races.items() if pairs.undisturbed}
                self.disturbed += not races
                self.races += [races] if races else []
                self.swapped_bytes = said["stored"]

    def find_break_evens(self) -> None:
        """Measure the kinds that are fastest for some layer at other sparsities as well."""
        best = dict.fromkeys(one.leading.kind.layer for one in chosen(self.measured).layers if one.leading)
        kinds = [
            Kind(name, at) for name in best for at in sorted({*OTHER_SPARSITIES, *(one.sparsity for one in self.asked.kinds)})
        ]
        kinds = [kind for kind in kinds if LAYERS[kind.layer].pattern.sparsities is None]
        for number in range(EVEN_PROCESSES if kinds else 0):
            if not self.has_time(1.0):
                break
            self.tell("break-evens", number, EVEN_PROCESSES)
            self.evens += self._measure([[kind] * len(self.layers) for kind in kinds], [], is_given=False)

    def _measure(self, plans: Sequence[Choices], rivals: Sequence[str], *, is_given: bool = True) -> list[Mapping[str, Passes]]:
        each = {arm_of(one): one for one in plans if any(one)}  # once
        said = self.timed("measure", list(each.values()), rivals, SECONDS, is_given)
        passes = {name: Passes(*one) for name, one in said.get("passes", {}).items()}
        self.disturbed += "passes" in said and not passes
        return [passes] if passes else []

    @property
    def measured(self) -> Measured:
        """What is known so far."""
        ready = self.ready
        kinds = [kind for kind in self.asked.kinds if str(kind) not in self.left_out]
        return Measured(
            self.layers,
            kinds,
            self.rivals,
            self.choosing,
            self.telling,
            self.plans,
            self.races,
            self.evens,
            ready["stored"],
            ready["kept"],
            self.swapped_bytes,
            self.asked.mask,
            bool(load(self.asked.target).masks),
        )


def _with_end(fresh: Generator[dict[str, Any], None, str | None]) -> Iterator[dict[str, Any]]:
    """Yield what a process says and, last, how it died if it did."""
    death = yield from fresh
    if death is not None:
        yield {"failure": death}


class Advised(NamedTuple):
    """A plan, the kinds and rivals there could be none of and why, how much was disturbed, the time, whether Ctrl-C came."""

    plan: Plan
    left_out: Mapping[str, str]
    disturbed: int  # processes that had nothing to say
    seconds: float
    is_interrupted: bool


def advise(asked: Asked, show: Callable[[str], None]) -> Advised:
    """Return the plan for a model; raises InputError for one that cannot be loaded or has no layer to exchange."""
    is_interrupted = False
    with closing(fork_server_of(asked.threads)) as fork_server:
        run = Run(asked, fork_server, show)
        if not run.layers:
            left = "; ".join(inspected(asked.target).left_dense)
            raise InputError(f"expected a model with layers that can be exchanged, got none ({left}); name another")
        run.prepare()
        try:
            run.choose()
            run.race()
            run.find_break_evens()
        except KeyboardInterrupt:
            is_interrupted = True
        except InputError as error:
            if not run.telling:
                raise
            run.left_out[LATER] = str(error)
    return Advised(plan_of(run.measured), run.left_out, run.disturbed, time.monotonic() - run.start, is_interrupted)
