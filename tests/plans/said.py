"""What processes say of a model whose layers are as fast as is asked, for tests of what is made of it."""

import random
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from hypothesis import strategies as st

from bench.models.layers import Linear
from bench.plans.arms import CALLED, DENSE, PLAIN, Choices, Kind, arm_of
from bench.plans.candidates import Measured, Processes, candidates
from bench.plans.rivals import RIVALS
from bench.plans.timing import Passes
from bench.runs.outcome import Race

KINDS = [Kind("block16", 0.9), Kind("tiled", 0.9), Kind("csr", 0.9)]
KEPT = {"block16 0.9": 0.1, "tiled 0.9": 0.3, "csr 0.9": 0.3}
REST = 1e-4
NONE: Mapping[str, Passes] = MappingProxyType({})

levels = st.floats(0.25, 8)


@st.composite
def speeds(draw: st.DrawFn) -> list[list[float]]:
    """By layer, how many times as fast as dense each kind is."""
    return draw(st.lists(st.lists(levels, min_size=3, max_size=3), min_size=1, max_size=4))


def passes(
    speeds: Sequence[Sequence[float]],
    noise: random.Random | None = None,
    before: float = 0.0,
    plans: Sequence[Choices] = (),
) -> dict[str, Passes]:
    """What one process says; without noise, layers of 1, 2, 3 ... ms dense, and all else of REST seconds.

    In plans each layer takes what it does where all are of its kind.
    """

    def taken(seconds: Sequence[float]) -> Passes:
        own = [one * (noise.lognormvariate(0, 0.02) if noise else 1.0) for one in seconds]
        return Passes(REST + sum(own), own)

    dense = [1e-3 * (number + 1) for number in range(len(speeds))]
    of_kinds = {
        str(kind): taken([one / by_kind[place] for one, by_kind in zip(dense, speeds, strict=True)])
        for place, kind in enumerate(KINDS)
    }
    plain = Passes(REST + sum(dense) - before, [])
    called = {CALLED: Passes(REST + sum(dense), [])} if before else {}
    said = {PLAIN: plain, DENSE: taken(dense), **called, **of_kinds}
    mixed = {
        arm_of(one): taken([said[str(kind) if kind else DENSE].layers[number] for number, kind in enumerate(one)])
        for one in plans
    }
    return mixed | said


def measured(
    speeds: Sequence[Sequence[float]], choosing: Processes, telling: Processes = (), races: Sequence[Mapping[str, Race]] = ()
) -> Measured:
    """What is known of a model once processes have said so much."""
    layers = [Linear((f"net.{number}",), 8, 16, (4,), True, True) for number in range(len(speeds))]
    kept = {name: [share] * len(speeds) for name, share in KEPT.items()}
    return Measured(layers, KINDS, list(RIVALS), choosing, telling, races=races, stored={DENSE: 4096}, kept=kept)


def through(
    speeds: Sequence[Sequence[float]], races: Sequence[Mapping[str, Race]] = (), more: Mapping[str, Passes] = NONE
) -> Measured:
    """What is known at the end where every process says the same, and `more` besides."""
    first = measured(speeds, [passes(speeds)] * 2)
    plans = candidates(first)
    said = passes(speeds, plans=plans) | dict(more)
    return measured(speeds, [*first.choosing, *[said] * 3], [said] * 9, races)._replace(plans=plans)


def raced(**speedups: float) -> Mapping[str, Race]:
    """What one process says of whole models, each so many times as fast as dense."""
    return {arm: Race([1e-3] * 4, [speed * 1e-3] * 4) for arm, speed in speedups.items()}
