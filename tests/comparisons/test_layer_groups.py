import math
import random
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given

from bench.comparisons.comparison import Comparison, compare
from bench.comparisons.gate import Limits, failures
from bench.comparisons.layer_groups import Group, Member, groups
from bench.runs.saved import Run
from bench.tables.comparison import text
from tests.helpers.rows import saved_row, saved_run
from tests.strategies import seeds

Sample = Mapping[int, float]
SPARSITIES = (0.5, 0.8, 0.9, 0.95)


def case(draw: random.Random, factor: float, deviation: float, processes: int, **fields: Any) -> Member:
    """A case whose processes, in a machine that swings by half, say a level and after a change another."""
    swing = [draw.uniform(1, 1.5) for _ in range(processes)]

    def sample(level: float) -> Sample:
        return {number: level * swing[number] * math.exp(draw.gauss(0, deviation)) for number in range(processes)}

    return Member(saved_row(**fields), sample(2.0), sample(2.0 * factor))


OPS = ("forward", "backward")


def members(
    draw: random.Random, ops: tuple[str, ...] = OPS, processes: int = 10, deviation: float = 0.1, **factors: float
) -> dict[str, Member]:
    """Noisy cases of three layers, some of which become faster or slower by a factor."""
    return {
        f"bench_{op}[{layer}-{sparsity}]": case(
            draw, factors.get(layer, factors.get(op, 1.0)), deviation, processes, op=op, layer=layer, sparsity=sparsity
        )
        for layer in ("csr", "masked", "tiled")
        for op in ops
        for sparsity in SPARSITIES
    }


def by_name(found: list[Group]) -> dict[str, Group]:
    return {group.name: group for group in found}


def test_a_layer_and_its_operations_are_groups_and_an_operation_that_is_all_of_a_layer_is_told_once() -> None:
    found = by_name(groups(members(random.Random(0))))
    names = {name for layer in ("csr", "masked", "tiled") for name in (layer, f"forward of {layer}", f"backward of {layer}")}
    assert set(found) == {f"{name} on cpu" for name in names}
    assert len(found["csr on cpu"].cases) == 8
    assert found["forward of csr on cpu"].cases == [f"bench_forward[csr-{sparsity}]" for sparsity in SPARSITIES]
    alone = groups(members(random.Random(0), ops=("forward",)))
    assert {group.name for group in alone} == {"csr on cpu", "masked on cpu", "tiled on cpu"}


def test_dense_in_fewer_weights_and_kernels_with_every_weight_kept_are_groups_of_their_own() -> None:
    named = {"tiled": ("sparse", "tiled"), "dense": ("narrow", "dense"), "block16": ("unpruned", "block16")}
    known = {
        f"{name}-{number}": case(random.Random(number), 1.0, 0.1, 10, model=model, layer=layer)
        for name, (model, layer) in (named | {"clone": ("dense", "dense"), "blocks": ("sparse", "block16")}).items()
        for number in range(3)
    }
    found = {name: [one.partition("-")[0] for one in group.cases] for name, group in by_name(groups(known)).items()}
    assert found == {
        "tiled on cpu": ["tiled"] * 3, "narrow dense on cpu": ["dense"] * 3, "dense on cpu": ["clone"] * 3,
        "unpruned block16 on cpu": ["block16"] * 3, "block16 on cpu": ["blocks"] * 3,
    }  # fmt: skip


def test_what_no_case_can_decide_its_layer_can() -> None:
    """A fifth slower, in noise of which two cases in three decide nothing."""
    hits = wrong = alone = 0
    for seed in range(50):
        known = members(random.Random(seed), csr=1 / 1.2)
        told = {group.name: group.verdict for group in groups(known)}
        hits += told["csr on cpu"] == "slower"
        wrong += sum(told[name] in ("slower", "faster") for name in told if "csr" not in name)
        each = compare(*_runs(known), paired=True)
        alone += len(each.having("slower"))
    assert hits >= 49
    assert wrong <= 2
    assert alone < 50 * 8 / 2


def test_of_identical_code_a_group_is_seldom_called_different() -> None:
    found = [group for seed in range(100) for group in groups(members(random.Random(seed)))]
    assert len(found) == 900
    assert sum(group.verdict in ("slower", "faster") for group in found) <= 5


def test_the_median_of_the_cases_in_each_pair_of_processes_is_what_a_group_says() -> None:
    draw = random.Random(3)
    known = members(draw, ops=("forward",), csr=0.9)
    [csr] = [group for group in groups(known) if group.name.startswith("csr")]
    own = [known[name] for name in csr.cases]
    medians = [statistics.median(math.log(member.new[number] / member.old[number]) for member in own) for number in range(10)]
    assert csr.evidence.interval.median == pytest.approx(math.exp(statistics.median(medians)), rel=1e-3)
    assert csr.slowdown == pytest.approx(1 / csr.evidence.interval.median - 1)


def test_a_pair_in_which_most_cases_were_done_says_nothing_of_the_group() -> None:
    draw = random.Random(4)
    full = members(draw, ops=("forward",), deviation=0.001)
    kept = {
        name: member._replace(new={number: value for number, value in member.new.items() if number < 8 or "0.95" in name})
        for name, member in full.items()
    }
    late = {
        name: member._replace(new={number: value * (1 if number < 8 else 0.5) for number, value in member.new.items()})
        for name, member in kept.items()
    }
    assert groups(kept) == groups(late)


@given(seeds)
def test_swapping_old_and_new_inverts_every_verdict(seed: int) -> None:
    known = members(random.Random(seed), csr=0.7, masked=1.4)
    back = {name: member._replace(old=member.new, new=member.old) for name, member in known.items()}
    mirror = {"slower": "faster", "faster": "slower"}
    one, other = by_name(groups(known)), by_name(groups(back))
    assert {name: mirror.get(group.verdict, group.verdict) for name, group in one.items()} == {
        name: group.verdict for name, group in other.items()
    }
    assert one["csr on cpu"].verdict == "slower"


def test_the_same_figures_are_the_same() -> None:
    known = {name: member._replace(new=member.old) for name, member in members(random.Random(5)).items()}
    assert {group.verdict for group in groups(known)} == {"same"}


def test_trainings_few_cases_and_few_processes_make_no_group_that_decides() -> None:
    draw = random.Random(6)
    assert groups({name: one._replace(row=saved_row(op="train")) for name, one in members(draw).items()}) == []
    assert groups(dict(list(members(draw).items())[:2])) == []
    assert {group.verdict for group in groups(members(draw, processes=7, csr=0.5))} == {"undecided"}
    assert groups(members(draw, processes=1)) == []


def _runs(known: dict[str, Member]) -> list[Run]:
    def run(side: Callable[[Member], Sample]) -> Run:
        return saved_run(
            {
                name: saved_row(op=row.op, layer=row.layer, sparsity=row.sparsity, speedups=list(side(member).values()))
                for name, member in known.items()
                for row in (member.row,)
            }
        )

    return [run(lambda member: member.old), run(lambda member: member.new)]


def slower(csr: float, *, paired: bool = True) -> Comparison:
    return compare(*_runs(members(random.Random(7), deviation=0.2, processes=12, csr=csr)), paired=paired)


def test_a_layer_that_is_slower_fails_the_gate_and_is_told_though_no_case_of_it_is() -> None:
    comparison = slower(1 / 1.25)
    assert not comparison.having("slower")
    [line] = [line for line in failures(comparison, Limits(0.1)) if line.startswith("csr on cpu: ")]
    assert ": slower by 2" in line
    assert line.endswith("over its 8 cases together, 10% allowed")
    lines = list(text(comparison))
    assert any(line.startswith("csr on cpu, 8 cases together: slower, 0.") for line in lines)
    assert any(line.startswith("cases together, 9 layers and operations of layers: ") for line in lines)
    assert not any("masked" in line or "tiled" in line for line in failures(comparison, Limits(0.1)))


def test_a_group_has_the_largest_limit_of_its_cases_and_none_where_one_is_not_watched() -> None:
    comparison = slower(1 / 1.25)
    assert failures(comparison, Limits(0.1, {"*forward[csr-0.8]": 0.5})) == [
        line for line in failures(comparison, Limits(0.1)) if line.startswith("backward")
    ]
    assert failures(comparison, Limits(0.1, {"*csr*": 0.5})) == []
    assert failures(comparison, Limits(0.1, {"*csr-0.8]": None})) == []


def test_a_group_that_is_undecided_fails_nothing_however_slow_it_seems() -> None:
    noisy = compare(*_runs(members(random.Random(9), deviation=1.5, csr=1 / 1.3)), paired=True)
    seeming = [group for group in noisy.groups if group.slowdown > 0.1]
    assert seeming
    assert {group.verdict for group in seeming} == {"undecided"}
    assert failures(noisy, Limits(0.1)) == []


def test_the_slowest_group_comes_first() -> None:
    found = groups(members(random.Random(8), csr=0.8, masked=1.2))
    assert [group.slowdown for group in found] == sorted((group.slowdown for group in found), reverse=True)
    assert "csr" in found[0].name


def test_cases_whose_definition_changed_are_in_no_group() -> None:
    old, new = _runs(members(random.Random(7), csr=0.5))
    changed = {
        name: one._replace(row=msgspec.structs.replace(one.row, nnz=7)) if "csr" in name else one
        for name, one in new.cases.items()
    }
    names = {group.name for group in compare(old, new._replace(cases=changed), paired=True).groups}
    assert "tiled on cpu" in names
    assert not any("csr" in name for name in names)


def test_saved_runs_have_no_groups() -> None:
    assert slower(0.5, paired=False).groups == []
