"""Which plans are measured whole, and which of them is taken."""

import itertools
import statistics

import pytest
from hypothesis import given

from bench.plans.arms import DENSE, PLAIN, Choices, arm_of
from bench.plans.candidates import ALIKE, ALIKE_PLANS, best_plan, candidates, gains, kept_by, may_pay, tried
from bench.plans.plan import chosen, plan_of
from bench.plans.timing import Passes
from bench.tables.plan import lines
from tests.plans.said import KEPT, KINDS, REST, measured, passes, raced, speeds, through

BLOCK, TILED, CSR = KINDS


@given(speeds())
def test_where_seconds_add_up_the_plan_is_nearly_the_fastest_there_is(speeds: list[list[float]]) -> None:
    found = best_plan(through(speeds))
    dense = [1e-3 * (number + 1) for number in range(len(speeds))]
    own = passes(speeds, plans=[found])[arm_of(found)].whole
    least = REST + sum(one / max(1.0, *by_kind) for one, by_kind in zip(dense, speeds, strict=True))
    assert own <= least * ALIKE * ALIKE_PLANS * (1 + 1e-9) or not any(found)
    assert own <= (REST + sum(dense)) * (1 + 1e-9)
    if least * ALIKE < REST + sum(dense):
        assert any(found)


@given(speeds())
def test_plans_to_measure_are_few_each_once_and_none_of_them_is_dense(speeds: list[list[float]]) -> None:
    found = candidates(measured(speeds, [passes(speeds)] * 2))
    assert len({arm_of(one) for one in found}) == len(found) <= len(KINDS) + 3
    assert all(any(one) and len(one) == len(speeds) for one in found)


@pytest.mark.parametrize("slow", [5e-3, 0.0])
def test_a_dense_layer_that_is_slow_behind_a_sparse_one_is_made_sparse_though_it_loses(slow: float) -> None:
    """As the last of three is in examples/own_mlp.py: it took 57 us behind a sparse one, 12 in the dense model."""
    speeds = [[1.0, 0.9, 0.1], [3.0, 4.0, 0.1], [0.7, 0.8, 0.1]]
    first = measured(speeds, [passes(speeds)] * 2)
    said = passes(speeds, plans=candidates(first))
    for name in said.keys() - {PLAIN, DENSE, *map(str, KINDS)}:
        behind = name.endswith(DENSE) and slow > 0
        first_one, middle, last = said[name].layers
        # In a plan of several kinds a layer need not take what it does where all are of its kind.
        said[name] = Passes(said[name].whole + slow * behind, [first_one, middle * 1.1, last + slow * behind])
    known = through(speeds, more=said)
    plan: Choices = [TILED] * 3 if slow else [None, TILED, None]
    assert best_plan(known) == plan
    told, planned = chosen(known), said[arm_of(plan)]
    for one, seconds, dense in zip(told.layers, planned.layers, said[DENSE].layers, strict=True):
        if one.choice:  # what is told of it is that of the planned model
            assert one.choice.speedup.median == pytest.approx(dense / seconds)
    assert [one.choice and one.choice.verdict for one in told.layers] == [
        ("faster" if number == 1 else "slower") if kind else None for number, kind in enumerate(plan)
    ]


def test_where_small_layers_cost_the_whole_more_than_they_save_the_large_one_alone_is_exchanged() -> None:
    speeds = [[1.3, 1.3, 0.5], [1.3, 1.3, 0.5], [4.0, 4.0, 0.5], [4.0, 4.0, 0.5]]
    first = measured(speeds, [passes(speeds)] * 2)
    said = passes(speeds, plans=candidates(first))
    for name in said.keys() - {PLAIN, DENSE}:
        if not name.startswith("dense, dense"):
            said[name] = said[name]._replace(whole=said[name].whole + 1e-2)
    assert best_plan(through(speeds, more=said)) == [None, None, TILED, TILED]


@pytest.mark.parametrize("slower", [1.02, 1.2])
def test_of_plans_about_as_fast_that_is_taken_which_keeps_most(slower: float) -> None:
    """Block16 is at every layer faster than tiled by more than kinds may be that are alike."""
    speeds = [[4.0, 3.0, 0.5]] * 2
    said = passes(speeds)
    block = said[str(BLOCK)]
    known = through(speeds, more={str(TILED): said[str(TILED)]._replace(whole=block.whole * slower)})
    kind = TILED if slower < ALIKE_PLANS else BLOCK
    assert best_plan(known) == [kind] * 2
    assert kept_by(known, [kind] * 2) == pytest.approx(KEPT[str(kind)])
    assert kept_by(known, [None, kind]) == pytest.approx((1 + KEPT[str(kind)]) / 2)


def test_a_kind_that_loses_everywhere_is_measured_no_further_and_its_figures_are_told() -> None:
    speeds = [[4.0, 0.5, 0.5], [4.0, 0.5, 0.9]]
    for processes, expected in ((2, KINDS), (3, [BLOCK, CSR])):
        so_far = measured(speeds, [passes(speeds)] * processes)
        assert [kind for kind in KINDS if may_pay(kind, so_far)] == expected
    telling = [{arm: one for arm, one in passes(speeds).items() if arm != str(TILED)}] * 9
    found = chosen(so_far._replace(telling=telling))
    assert found.choices == [BLOCK] * 2
    assert [{option.kind: option.speedup.median for option in one.options}[TILED] for one in found.layers] == [0.5, 0.5]


def test_gains_are_of_the_whole_and_a_fast_path_that_is_left_counts() -> None:
    said = passes([[2.0, 2.0, 2.0]], before=5e-4)
    own = REST + 5e-4
    assert gains([said], str(TILED)) == pytest.approx([(REST + 5e-4) / own])
    assert gains([{PLAIN: said[PLAIN]}], str(TILED)) == []


def test_plans_that_were_tried_are_told_the_fastest_first() -> None:
    known = through([[1.2, 4.0, 1.2], [2.0, 2.5, 0.5]], [raced(planned=3.0)] * 12)
    plan = plan_of(known)
    assert {arm_of(one.choices): one.gain for one in plan.tried} == {arm_of(one): gain for one, gain in tried(known)}
    assert [arm_of(one.choices) for one in plan.tried if one.is_taken] == [arm_of(best_plan(known))]
    text = "\n".join(lines(plan, {}))
    shown = [f"{one.gain:.2f}" for one in sorted(plan.tried, key=lambda one: -one.gain)]
    places = [text.index(one) for one in dict.fromkeys(shown)]
    assert all(first < second for first, second in itertools.pairwise(places))
    assert statistics.median(gains(known.choosing, str(TILED))) == max(one.gain for one in plan.tried)
