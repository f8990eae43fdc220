import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.comparisons.cases import VERDICTS
from bench.comparisons.comparison import Comparison, compare
from bench.runs.saved import Run
from bench.tables.comparison import text
from tests.helpers.rows import WIDE, saved_row, saved_run
from tests.strategies import seeds

MIRROR = {"slower": "faster", "faster": "slower", "new": "gone", "gone": "new"}
LAYERS = ("csr", "masked", "tiled")


def noisy(draw: random.Random, level: float, count: int = 10, deviation: float = 0.02) -> list[float]:
    return [level * draw.lognormvariate(0, deviation) for _ in range(count)]


def drawn(seed: int, **changed: float) -> Run:
    """A run of a few layers at a few sparsities, some layers faster or slower by a factor."""
    draw = random.Random(seed)
    rows = {
        f"bench/bench_layer.py::bench_forward[{layer}-{sparsity}]": saved_row(
            layer=layer, sparsity=sparsity, speedups=noisy(draw, changed.get(layer, 1.0) * (1 + sparsity))
        )
        for layer in LAYERS
        for sparsity in (0.5, 0.8, 0.9)
        if draw.random() < 0.9 or changed
    }
    return saved_run(rows or {"one": saved_row()}, name=f"run {seed}", time=f"2026-01-{seed % 28 + 1:02}")


def verdicts(comparison: Comparison) -> dict[str, str]:
    return {one.name: one.verdict for one in comparison.changes}


@given(seeds, st.booleans())
def test_a_run_against_itself_is_the_same_everywhere(seed: int, paired: bool) -> None:
    run = drawn(seed)
    assert set(verdicts(compare(run, run, paired=paired)).values()) == {"same"}


@given(seeds, seeds, st.sampled_from([0.5, 0.8, 1.0, 1.3]), st.booleans())
def test_swapping_the_runs_inverts_every_verdict(seed: int, other: int, factor: float, paired: bool) -> None:
    old, new = drawn(seed), drawn(other, csr=factor)
    there, back = verdicts(compare(old, new, paired=paired)), verdicts(compare(new, old, paired=paired))
    assert {name: MIRROR.get(verdict, verdict) for name, verdict in there.items()} == back


@given(seeds, seeds)
def test_the_order_of_the_cases_does_not_matter(seed: int, other: int) -> None:
    old, new = drawn(seed), drawn(other, masked=0.7)
    shuffled = new._replace(cases=dict(random.Random(seed).sample(list(new.cases.items()), len(new.cases))))
    assert compare(old, new).changes == compare(old, shuffled).changes


def test_a_slower_layer_is_named_and_the_others_are_counted() -> None:
    comparison = compare(drawn(1, csr=1.0), drawn(2, csr=0.8))
    assert {one.row.layer for one in comparison.having("slower")} == {"csr"}
    assert len(comparison.having("slower")) == 3
    for one in comparison.having("slower"):
        assert one.slowdown == pytest.approx(0.25, abs=0.05)
    lines = list(text(comparison, WIDE))
    assert sum("forward[csr-" in line for line in lines) == 3
    assert not any("forward[tiled-" in line or "forward[masked-" in line for line in lines)
    assert any(line.startswith("9 cases: 3 slower") for line in lines)
    assert "csr: 3 of 3 cases slower, by 25% (median)" in lines or "csr: 3 of 3 cases slower, by 24% (median)" in lines


def one_case(old: dict[str, Any], new: dict[str, Any], **how: Any) -> Any:
    [change] = compare(saved_run({"a": saved_row(**old)}), saved_run({"a": saved_row(**new)}), **how).changes
    return change


def test_a_speedup_that_fell_because_dense_is_faster_says_so() -> None:
    draw = random.Random(1)
    speedups = [noisy(draw, level, deviation=0.001) for level in (2.0, 1.5)]
    own = noisy(draw, 1e-3, deviation=0.001)
    times = [[value * own[0] for value in sample] for sample in speedups]
    old, new = (
        {"speedups": s, "process_seconds": own, "process_dense_seconds": t} for s, t in zip(speedups, times, strict=True)
    )
    change = one_case(old, new)
    assert (change.verdict, change.note) == ("slower", "dense is faster")
    assert change.own_time.median == pytest.approx(1)
    assert change.dense_time.median == pytest.approx(0.75, abs=0.01)
    assert (one_case(new, old).verdict, one_case(new, old).note) == ("faster", "dense is slower")
    # The same fall by the candidate's own time is the candidate's.
    slow = {**new, "process_seconds": [value * 4 / 3 for value in own], "process_dense_seconds": times[0]}
    assert (one_case(old, slow).verdict, one_case(old, slow).note) == ("slower", "")


def test_dense_is_judged_by_the_clock_where_processes_took_turns() -> None:
    draw = random.Random(2)
    one = noisy(draw, 1.0, 12)
    times = [noisy(draw, level, 12) for level in (1e-3, 1.2e-3)]
    old, new = ({"layer": "dense", "model": "dense", "sparsity": 0.0, "speedups": one, "process_seconds": t} for t in times)
    assert one_case(old, new, paired=True).verdict == "slower"
    assert one_case(old, new, paired=True).slowdown == pytest.approx(0.2, abs=0.03)
    assert one_case(new, old, paired=True).verdict == "faster"
    assert one_case(old, new).verdict == "same"


def test_what_saved_runs_differ_by_as_a_whole_is_no_change_and_in_turns_it_is() -> None:
    draw = random.Random(7)
    levels = {f"{layer}-{number}": draw.lognormvariate(0, 0.15) for layer in LAYERS for number in range(8)}

    def run(level: Callable[[str], float]) -> Run:
        rows = {
            name: saved_row(layer=name.partition("-")[0], nnz=number, speedups=noisy(draw, level(name)))
            for number, name in enumerate(levels)
        }
        return saved_run(rows)

    old, new = run(lambda _: 1.0), run(lambda name: levels[name])
    assert compare(old, new).having("slower", "faster") == []
    assert len(compare(old, new, paired=True).having("slower", "faster")) > len(levels) / 2


def test_what_is_too_small_to_be_told_between_saved_runs_is_said_and_what_tells_it() -> None:
    def told(cases: int, **how: Any) -> str:
        draw = random.Random(cases)
        old, new = ({f"{n}": saved_row(nnz=n, speedups=noisy(draw, 2.0)) for n in range(cases)} for _ in range(2))
        return "\n".join(text(compare(saved_run(old), saved_run(new), **how)))

    assert "with 1 case between saved runs, differences below 15% cannot be told from how far two runs differ" in told(1)
    assert "with 2 cases between saved runs, differences below " in told(2)
    assert "cannot be told" not in told(1, paired=True)
    run = drawn(1, csr=1.0)
    assert "cannot be told" not in "\n".join(text(compare(run, run)))


ANOTHER: dict[str, Any] = {
    **dict.fromkeys(("op", "model", "layer", "update", "shape", "device", "dtype", "data", "protocol", "regime"), "other"),
    **dict.fromkeys(("batch", "threads", "parameters", "nnz", "epochs"), 7),
    "sparsity": 0.6,
    "skew": 0.25,
    "flops_counted": 3e9,
    "dense_flops_counted": 3e9,
    "waiting": "counted",
}


@pytest.mark.parametrize("changed", [{field: value} for field, value in ANOTHER.items()])
def test_a_name_that_means_something_else_is_not_compared(changed: dict[str, Any]) -> None:
    change = one_case({}, changed)
    [(field, value)] = changed.items()
    assert change.verdict == "changed definition"
    assert change.note.startswith(f"{field} was ")
    assert change.note.endswith(f"and is {value}")


def test_a_renamed_case_is_found_by_what_it_is() -> None:
    old = saved_run({"a": saved_row(), "b": saved_row(layer="tiled")})
    new = saved_run({"c": saved_row(), "b": saved_row(layer="tiled")})
    assert {(one.name, one.verdict, one.note) for one in compare(old, new).changes} == {
        ("c", "same", "was a"),
        ("b", "same", ""),
    }


def test_two_cases_of_one_definition_are_not_taken_for_each_other() -> None:
    old, new = saved_run({"a": saved_row(), "b": saved_row()}), saved_run({"c": saved_row()})
    assert verdicts(compare(old, new)) == {"a": "gone", "b": "gone", "c": "new"}


def test_two_new_cases_of_one_old_ones_definition_are_new() -> None:
    old, new = saved_run({"a": saved_row()}), saved_run({"b": saved_row(), "c": saved_row()})
    assert verdicts(compare(old, new)) == {"a": "gone", "b": "new", "c": "new"}


def test_of_one_verdict_the_largest_change_comes_first() -> None:
    slower = compare(drawn(1, csr=1.0), drawn(2, csr=0.8, tiled=0.6, masked=0.7), paired=True).having("slower")
    assert [one.row.layer for one in slower] == ["tiled"] * 3 + ["masked"] * 3 + ["csr"] * 3


def test_old_cases_that_were_not_asked_for_are_only_counted() -> None:
    old, new = drawn(1, csr=1.0), saved_run({"other": saved_row(update="set")})
    comparison = compare(old, new, asked=lambda _, row: row.layer == "csr")
    assert len(comparison.having("gone")) == 3
    assert comparison.not_asked == 6
    assert "6 of the run before were not asked for" in "\n".join(text(comparison))


def test_the_seeds_of_a_training_are_its_processes() -> None:
    def trained(level: float, seeds: int) -> Run:
        draw = random.Random(int(level * 100))
        rows = {
            f"bench_train[digits-seed-static-csr-8x8b4-0.8-seed{seed}-cpu]": saved_row(
                op="train", seed=seed, speedups=[level * draw.lognormvariate(0, 0.01)], data="digits", protocol="seed"
            )
            for seed in range(seeds)
        }
        return saved_run(rows)

    [few] = compare(trained(2.0, 3), trained(1.0, 3)).changes
    assert (few.name, few.verdict, few.note) == (
        "bench_train[digits-seed-static-csr-8x8b4-0.8-cpu]",
        "undecided",
        "3 processes",
    )
    [many] = compare(trained(2.0, 10), trained(1.0, 10)).changes
    assert many.verdict == "slower"
    [alike] = compare(trained(2.0, 6), trained(1.9, 6)).changes  # processes enough: it is not for want of them
    assert (alike.verdict, alike.note) == ("undecided", "")


def test_what_no_clock_measures_is_told_where_it_changed() -> None:
    old = saved_run({"a": saved_row(), "b": saved_row(layer="tiled", test_accuracy=0.9)})
    new = saved_run({"a": saved_row(bytes_stored=400), "b": saved_row(layer="tiled", test_accuracy=0.8)})
    told = list(compare(old, new).summary.costs)
    assert "a: bytes_stored was 300 and is 400" in told
    assert "b: test_accuracy was 0.900 and is 0.800" in told
    assert len(told) == 2
    assert not list(compare(old, old).summary.costs)


def test_other_hardware_is_not_held_against_the_clock() -> None:
    comparison = compare(drawn(1, csr=1.0), drawn(2, csr=0.5)._replace(hardware="other"))
    lines = list(text(comparison))
    assert any(line.startswith("The hardware is another") for line in lines)
    assert not any("csr" in line or "slower" in line for line in lines)


def test_every_verdict_is_one_of_those_that_are_promised() -> None:
    assert set(verdicts(compare(drawn(3), drawn(4, csr=0.5))).values()) <= set(VERDICTS)
