import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.plans.arms import DENSE, PLAIN, Kind, Swap, arm_of
from bench.plans.plan import chosen, plan_of, predicted
from bench.plans.rivals import RIVALS
from bench.plans.timing import Passes
from bench.tables.plan import lines, pasted
from bench.tables.text import Screen
from tests import strategies
from tests.plans.said import KINDS, REST, levels, measured, passes, raced, speeds, through


@given(speeds(), speeds(), strategies.seeds)
def test_what_is_told_of_a_kind_no_process_says_that_had_a_part_in_choosing(
    speeds: list[list[float]], others: list[list[float]], seed: int
) -> None:
    others = (others * len(speeds))[: len(speeds)]
    noise = random.Random(seed)
    told = []
    plan = chosen(through(speeds)).choices
    telling = [passes(speeds, noise, plans=[plan]) for _ in range(9)]
    for choosing in (speeds, others):
        found = chosen(measured(speeds, [passes(choosing, plans=[plan])] * 3, telling)._replace(plans=[plan]))
        told.append([{option.kind: (option.speedup, option.verdict) for option in one.options} for one in found.layers])
        if any(found.choices):
            assert [one.choice and one.choice.kind for one in found.layers] == list(plan)
    assert told[0] == told[1]


@given(speeds(), st.lists(st.sampled_from([None, *KINDS]), min_size=4, max_size=4), st.floats(0, 5e-4))
def test_the_whole_is_predicted_as_it_is_where_seconds_add_up(
    speeds: list[list[float]], wanted: list[Kind | None], before: float
) -> None:
    """Also where what is called layer by layer takes longer than a fast path that a plan leaves."""
    choices = wanted[: len(speeds)]
    one = passes(speeds, before=before, plans=[choices])
    own = REST + sum(one[str(kind or DENSE)].layers[number] for number, kind in enumerate(choices))
    assert math.isclose(predicted(one, choices), one[PLAIN].whole / own, rel_tol=1e-9)


def test_what_a_kind_makes_of_all_else_is_predicted_by_its_share_of_the_layers() -> None:
    plans: list[list[Kind | None]] = [[KINDS[1], None], [KINDS[1], KINDS[1]]]
    one = passes([[2, 2, 2], [2, 2, 2]], plans=plans)
    slow = one["tiled 0.9"]
    one["tiled 0.9"] = slow._replace(whole=slow.whole + 4e-4)
    expected = [one[DENSE].whole / (one[DENSE].whole - saved) for saved in (0.5e-3 - 2e-4, 1.5e-3 - 4e-4)]
    assert [predicted(one, plan) for plan in plans] == pytest.approx(expected)


def test_a_dense_layer_that_is_slow_beside_sparse_ones_is_predicted_to_be() -> None:
    """And how long the planned model took as a whole is not what is predicted."""
    plan = [None, KINDS[1]]
    one = passes([[2, 2, 2], [2, 2, 2]], plans=[plan])
    slow = one[arm_of(plan)]
    one[arm_of(plan)] = Passes(slow.whole + 1.0, [slow.layers[0] + 5e-4, slow.layers[1]])
    assert predicted(one, plan) == pytest.approx(one[DENSE].whole / (one[DENSE].whole - 1e-3 + 5e-4))


@pytest.mark.parametrize(("processes", "calls"), [(9, 1), (2, 0)])
def test_a_plan_whose_whole_was_not_measured_is_one_where_it_is_shown_to_be_faster_in_place(processes: int, calls: int) -> None:
    """As after Ctrl-C, or where other processes disturbed all races."""
    known = through([[1.2, 4.0, 1.2]])
    plan = plan_of(known._replace(telling=known.telling[:processes]))
    assert plan.predicted is not None
    assert len(plan.calls) == calls
    assert ("leave it dense" in "\n".join(lines(plan, {}, Screen(100)))) == (not calls)


@pytest.mark.parametrize(("speed", "calls"), [(2.0, 1), (0.8, 0), (1.0, 0)])
def test_a_plan_whose_whole_is_not_faster_is_none(speed: float, calls: int) -> None:
    speeds = [[1.2, 4.0, 1.2]]
    plan = plan_of(through(speeds, [raced(planned=speed)] * 12))
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
    plan = plan_of(through(speeds, [raced(**{"planned": planned, name: rival})] * 12))
    assert [one.name for one in plan.rivals] == [name]
    assert told in " ".join(" ".join(lines(plan, {}, Screen(100))).split())


@given(speeds(), st.data())
def test_what_a_rival_does_for_a_layer_is_told_beside_its_choice(speeds: list[list[float]], data: st.DataObject) -> None:
    """And never chosen."""
    [name, *_] = RIVALS
    own = data.draw(st.lists(levels, min_size=len(speeds), max_size=len(speeds)))
    dense = passes(speeds)[DENSE]
    rival = Passes(dense.whole, [layer / speed for layer, speed in zip(dense.layers, own, strict=True)])
    with_rival, without = (chosen(through(speeds, more=more)) for more in ({name: rival}, {}))
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
    known = through([[0.5, 0.9, 0.5]])._replace(evens=evens)
    found = chosen(known).layers[0]
    assert found.break_even is not None
    assert 0.8 < found.break_even.low <= found.break_even.high < 0.95
    told = "\n".join(lines(plan_of(known), {}))
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
