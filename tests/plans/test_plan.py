import math
import random
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.models.layers import Linear
from bench.plans.arms import CALLED, DENSE, PLAIN, Kind, Swap
from bench.plans.in_place import Passes
from bench.plans.plan import ALIKE, Measured, chosen, may_pay, plan_of, predicted
from bench.plans.rivals import RIVALS
from bench.runs.outcome import Race
from bench.tables.plan import lines, pasted
from bench.tables.text import Screen
from tests import strategies

KINDS = [Kind("block16", 0.9), Kind("tiled", 0.9), Kind("csr", 0.9)]
KEPT = {"block16 0.9": 0.1, "tiled 0.9": 0.3, "csr 0.9": 0.3}
REST = 1e-4

levels = st.floats(0.25, 8)


@st.composite
def speeds(draw: st.DrawFn) -> list[list[float]]:
    """By layer, how many times as fast as dense each kind is."""
    return draw(st.lists(st.lists(levels, min_size=3, max_size=3), min_size=1, max_size=4))


def passes(speeds: Sequence[Sequence[float]], noise: random.Random | None = None, before: float = 0.0) -> Mapping[str, Passes]:
    """What one process says; without noise, layers of 1, 2, 3 ... ms dense, and all else of REST seconds."""

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
    return {PLAIN: plain, DENSE: taken(dense), **called, **of_kinds}


def measured(
    speeds: Sequence[Sequence[float]], processes: Sequence[Mapping[str, Passes]], races: Sequence[Mapping[str, Race]] = ()
) -> Measured:
    layers = [Linear((f"net.{number}",), 8, 16, (4,), True, True) for number in range(len(speeds))]
    kept = {name: [share] * len(speeds) for name, share in KEPT.items()}
    return Measured(layers, KINDS, list(RIVALS), processes, races, stored={DENSE: 4096}, kept=kept)


def raced(**speedups: float) -> Mapping[str, Race]:
    """What one process says of whole models, each so many times as fast as dense."""
    return {arm: Race([1e-3] * 4, [speed * 1e-3] * 4) for arm, speed in speedups.items()}


@given(speeds())
def test_each_layer_is_given_the_fastest_kind_that_pays_and_of_like_ones_that_which_keeps_more(
    speeds: list[list[float]],
) -> None:
    found = chosen(measured(speeds, [passes(speeds)] * 18))
    for one, by_kind in zip(found.layers, speeds, strict=True):
        best = max(by_kind)
        if best > 1.06:
            assert one.choice is not None
            place = KINDS.index(one.choice.kind)
            paying = [speed if speed > 1.0 else 0.0 for speed in by_kind]
            assert paying[place] * ALIKE >= best * (1 - 1e-9)
            is_like_tiled = paying[1] * ALIKE >= best * (1 + 1e-9) or paying[2] * ALIKE >= best * (1 + 1e-9)
            if is_like_tiled and min(abs(speed * ALIKE / best - 1) for speed in by_kind) > 1e-6:
                assert one.choice.kind.layer != "block16" or max(paying[1], paying[2]) <= 1.06
        if best < 1:
            assert one.choice is None
    assert sorted(name for swap in found.swaps for name in swap.names) == sorted(
        one.layer.name for one in found.layers if one.choice
    )


@given(speeds(), strategies.seeds, st.integers(0, 20))
def test_whatever_is_measured_nothing_is_exchanged_but_what_is_shown_to_be_faster(
    speeds: list[list[float]], seed: int, processes: int
) -> None:
    noise = random.Random(seed)
    found = chosen(measured(speeds, [passes(speeds, noise) for _ in range(processes)]))
    for one in found.layers:
        assert one.choice is None or (one.choice.verdict == "faster" and one.choice.speedup.low > 1)
    assert not found.is_decided or processes >= 6


@given(speeds(), speeds(), strategies.seeds)
def test_what_is_told_of_a_kind_no_process_says_that_had_a_part_in_choosing(
    speeds: list[list[float]], others: list[list[float]], seed: int
) -> None:
    others = (others * len(speeds))[: len(speeds)]
    noise = random.Random(seed)
    telling = [passes(speeds, noise) for _ in range(9)]
    told = []
    for choosing in (speeds, others):
        mixed = [one for tells in telling for one in (passes(choosing), tells)]
        found = chosen(measured(speeds, mixed))
        told.append([{option.kind: (option.speedup, option.verdict) for option in one.options} for one in found.layers])
    assert told[0] == told[1]


@given(speeds(), st.lists(st.sampled_from([None, *KINDS]), min_size=4, max_size=4), st.floats(0, 5e-4))
def test_the_whole_is_predicted_as_it_is_where_seconds_add_up(
    speeds: list[list[float]], wanted: list[Kind | None], before: float
) -> None:
    """Also where what is called layer by layer takes longer than a fast path that a plan leaves."""
    choices = {number: kind for number, kind in enumerate(wanted[: len(speeds)]) if kind}
    one = passes(speeds, before=before)
    own = REST + sum(one[str(choices.get(number, DENSE))].layers[number] for number in range(len(speeds)))
    assert math.isclose(predicted(one, choices, len(speeds)), one[PLAIN].whole / own, rel_tol=1e-9)


def test_what_a_kind_makes_of_all_else_is_predicted_by_its_share_of_the_layers() -> None:
    one = dict(passes([[2, 2, 2], [2, 2, 2]]))
    slow = one["tiled 0.9"]
    one["tiled 0.9"] = slow._replace(whole=slow.whole + 4e-4)
    expected = [one[DENSE].whole / (one[DENSE].whole - saved) for saved in (0.5e-3 - 2e-4, 1.5e-3 - 4e-4)]
    found = [predicted(one, dict.fromkeys(range(count), KINDS[1]), 2) for count in (1, 2)]
    assert found == pytest.approx(expected)


def test_a_kind_that_loses_everywhere_is_measured_no_further() -> None:
    speeds = [[4.0, 0.5, 0.5], [4.0, 0.5, 0.9]]
    for processes, expected in ((3, KINDS), (4, [KINDS[0], KINDS[2]])):
        so_far = measured(speeds, [passes(speeds)] * processes)
        assert [kind for kind in KINDS if may_pay(kind, so_far)] == expected
    rest = [{arm: one for arm, one in passes(speeds).items() if not arm.startswith("csr")}] * 4
    assert chosen(measured(speeds, [*so_far.passes, *rest])).layers[0].choice is not None


@pytest.mark.parametrize(("speed", "calls"), [(2.0, 1), (0.8, 0), (1.0, 0)])
def test_a_plan_whose_whole_is_not_faster_is_none(speed: float, calls: int) -> None:
    speeds = [[1.2, 4.0, 1.2]]
    races = [raced(planned=speed)] * 12
    plan = plan_of(measured(speeds, [passes(speeds)] * 18, races))
    text = "\n".join(lines(plan, {}, Screen(100)))
    assert len(plan.calls) == calls
    assert ("leave it dense" in text) == (not calls)
    assert ("apart, more than 10%" in text) == (not plan.agrees)
    assert ("from sparse_models import sparsify" in text) == bool(calls)
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize(
    ("rival", "planned", "told"),
    [
        (
            4.0,
            2.0,
            "4.00 [4.00 4.00] + times as fast as yours (1 ms), and 2.00 [2.00 2.00] times as fast as the plan: it beats",
        ),
        (2.0, 4.0, "2.00 [2.00 2.00] + times as fast as yours (1 ms); the plan is 2.00 [2.00 2.00] times as fast as that."),
        (2.0, 2.0, "and as fast as the plan"),
        (4.0, 0.5, "4.00 [4.00 4.00] + times as fast as yours (1 ms)."),  # there is no plan then
    ],
)
@pytest.mark.parametrize("name", RIVALS)
def test_a_plan_tells_whether_dense_in_another_way_beats_it(name: str, rival: float, planned: float, told: str) -> None:
    speeds = [[1.2, 3.0, 1.2]]
    plan = plan_of(measured(speeds, [passes(speeds)] * 18, [raced(**{"planned": planned, name: rival})] * 12))
    assert [one.name for one in plan.rivals] == [name]
    assert told in " ".join(" ".join(lines(plan, {}, Screen(100))).split())


@given(speeds(), st.data())
def test_what_a_rival_does_for_a_layer_is_told_beside_its_choice(speeds: list[list[float]], data: st.DataObject) -> None:
    """And never chosen."""
    [name, *_] = RIVALS
    own = data.draw(st.lists(levels, min_size=len(speeds), max_size=len(speeds)))
    one = passes(speeds)
    dense = one[DENSE]
    rival = Passes(dense.whole, [layer / speed for layer, speed in zip(dense.layers, own, strict=True)])
    with_rival, without = (chosen(measured(speeds, [said] * 18)) for said in ({**one, name: rival}, one))
    assert [layer.choice for layer in with_rival.layers] == [layer.choice for layer in without.layers]
    for layer, speed in zip(with_rival.layers, own, strict=True):
        [found] = layer.rivals
        assert found.speedup.median == pytest.approx(speed)
        assert found.verdict == "faster" or speed < 1.06
        assert (found.against_choice is None) == (layer.choice is None)
        if layer.choice and abs(speed / layer.choice.speedup.median - 1) > 0.06:
            assert (found.against_choice == "faster") == (speed > layer.choice.speedup.median)


def test_break_evens_are_between_the_sparsities_that_they_were_looked_for_at() -> None:
    at = {0.5: 0.5, 0.8: 0.9, 0.95: 3.0}
    evens = [{DENSE: Passes(1.0, [1.0]), **{f"tiled {s:g}": Passes(1.0, [1 / speed]) for s, speed in at.items()}}] * 6
    found = chosen(measured([[0.5, 0.9, 0.5]], [passes([[0.5, 0.9, 0.5]])] * 4)._replace(evens=evens)).layers[0]
    assert found.break_even is not None
    assert 0.8 < found.break_even.low <= found.break_even.high < 0.95
    told = "\n".join(lines(plan_of(measured([[0.5, 0.9, 0.5]], [passes([[0.5, 0.9, 0.5]])] * 4)._replace(evens=evens)), {}))
    assert f"tiled {found.break_even.median:.2f}" in told
    assert "No layer is to be exchanged" in told


def test_with_nothing_measured_nothing_is_known() -> None:
    plan = plan_of(measured([[1, 1, 1]], []))
    assert (plan.layers, plan.calls, plan.predicted) == ([], [], None)
    assert "Nothing is known" in "\n".join(lines(plan, {"csr 0.9": "a reason"}))


def test_the_calls_are_written_as_they_are_made() -> None:
    calls = [Swap("tiled", 0.9, ["a.0", "b"]), Swap("block16", 0.5, ["c"])]
    plan = plan_of(measured([[1, 1, 1]], []))
    assert pasted(plan) == ""
    assert pasted(plan._replace(calls=calls)).splitlines() == [
        "from sparse_models import sparsify",
        "",
        'sparsify(model, "tiled", sparsity=0.9, names=["a.0", "b"])',
        'sparsify(model, "block16", sparsity=0.5, names=["c"])',
    ]


@given(st.lists(st.text(min_size=1), min_size=1, max_size=12), strategies.sparsities)
def test_a_call_is_python_whatever_the_names_and_however_many(names: list[str], sparsity: float) -> None:
    found: list[tuple[object, ...]] = []

    def sparsify(model: object, layer: str, *, sparsity: float, names: list[str]) -> None:
        found.append((model, layer, sparsity, names))

    text = str(Swap("tiled", sparsity, names))
    exec(text, {"sparsify": sparsify, "model": 1})  # noqa: S102  # what a user does with it
    assert found == [(1, "tiled", sparsity, names)]
    assert max(map(len, text.splitlines())) <= 100 + 2 + max(len(repr(name)) for name in names)


def test_a_long_call_is_broken_between_names() -> None:
    text = str(Swap("tiled", 0.9, [f"encoder.layers.{number}.linear1" for number in range(12)]))
    assert max(map(len, text.splitlines())) <= 100
