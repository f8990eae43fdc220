import math
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.comparisons.change_points import RUNS_NEEDED, Step, steps
from bench.comparisons.history import all_series
from bench.runs.saved import Measured, Run, SavedRow, interval
from bench.statistics.samples import Sample
from bench.statistics.verdicts import process_interval
from bench.tables.history import sparkline
from tests.helpers.rows import row
from tests.strategies import seeds

Level = Callable[[int], float]
CASE = "bench/bench_layer.py::bench_forward[csr-0.9]"


def measured(speedups: Sequence[float], **fields: Any) -> Measured:
    """A case of which each process said one of the speed-ups."""
    middle, low, high = process_interval(speedups)
    content = row(**fields) | {
        "speedup": middle, "speedup_low": low, "speedup_high": high, "interval_over": "processes",
        "process_numbers": list(range(len(speedups))), "process_speedups": list(speedups),
        "process_seconds": [1e-3 / value for value in speedups], "process_dense_seconds": [1e-3] * len(speedups),
        "dense_seconds": 1e-3,
    }  # fmt: skip
    one = msgspec.convert(content, SavedRow)
    samples = (one.process_speedups, one.process_seconds, one.process_dense_seconds)
    return Measured(one, *(Sample(one.process_numbers, sample) for sample in samples))


def series(
    draw: random.Random, runs: int, level: Level = lambda _: 2.0, noise: float = 0.03, within: float = 0.03, processes: int = 12
) -> list[Run]:
    """Runs of one case: `noise` from run to run, `within` a run from process to process, around a level for each run."""
    made = []
    for number in range(runs):
        middle = math.log(level(number)) + draw.gauss(0, noise)
        case = measured([math.exp(middle + draw.gauss(0, within)) for _ in range(processes)])
        made.append(run(number, {CASE: case}))
    return made


def run(number: int, cases: dict[str, Measured], machine: str = "zen") -> Run:
    at = f"20{26 + number // 300}-{number // 25 % 12 + 1:02}-{number % 25 + 1:02}T12:00:00"
    return Run(f"{number + 1:04}_run.json", at, f"{number:04x}abcdef0123", False, machine, machine, {}, cases)


def found(runs: Sequence[Run]) -> list[Step]:
    [one] = all_series(runs)
    return steps(one.points)


def stepping(at: int, factor: float) -> Level:
    return lambda number: 2.0 * (factor if number >= at else 1.0)


@pytest.mark.parametrize("runs", [RUNS_NEEDED, 15, 60])
@pytest.mark.parametrize(("noise", "within"), [(0.04, 0.02), (0.02, 0.06)])
def test_noise_is_rarely_called_a_step(runs: int, noise: float, within: float) -> None:
    draw = random.Random(1)
    trials = 300 if runs < 60 else 100
    wrong = sum(bool(found(series(draw, runs, noise=noise, within=within))) for _ in range(trials))
    assert wrong <= 0.01 * trials


@pytest.mark.parametrize(("runs", "at"), [(20, 10), (40, 10), (60, 45)])
@pytest.mark.parametrize("factor", [1 / 1.2, 1.2])
def test_a_step_of_a_fifth_is_found_where_it_is(runs: int, at: int, factor: float) -> None:
    draw = random.Random(2)
    right = 0
    for _ in range(60):
        told = found(series(draw, runs, stepping(at, factor)))
        right += [(abs(step.at - at) <= 1, step.verdict) for step in told] == [(True, "faster" if factor > 1 else "slower")]
    assert right >= 57


def test_a_step_no_larger_than_what_dense_gained_by_another_layout_is_none() -> None:
    draw = random.Random(9)

    def runs(factor: float, late: dict[str, Any], early: dict[str, Any]) -> list[Run]:
        levels = [(2.0, early)] * 6 + [(2.0 * factor, late)] * 6
        samples = [([level * draw.lognormvariate(0, 0.01) for _ in range(12)], way) for level, way in levels]
        return [run(number, {CASE: measured(sample, **way)}) for number, (sample, way) in enumerate(samples)]

    first, second = {"dense_layout": "batch-major", "dense_layout_gain": 1.0}, {"dense_layout": "feature-major"}
    for factor in (1.15, 1 / 1.15):
        assert len(found(runs(factor, first, first))) == 1
        assert found(runs(factor, second | {"dense_layout_gain": 1.12}, first)) == []
        assert found(runs(factor, first, second | {"dense_layout_gain": 1.12})) == []
        assert found(runs(factor, second, first)) == []  # what it gained is not known
    assert len(found(runs(1.3, second | {"dense_layout_gain": 1.12}, first))) == 1


def test_levels_and_change_hold_the_truth() -> None:
    [step] = found(series(random.Random(3), 60, stepping(30, 1 / 1.2), noise=0.01))
    assert step.before.low <= 2.0 <= step.before.high
    assert step.after.low <= 2 / 1.2 <= step.after.high
    assert step.change.low <= 1 / 1.2 <= step.change.high < 1


def test_a_step_at_the_newest_run_is_found_and_one_odd_run_before_is_none() -> None:
    draw = random.Random(4)
    newest = [[step.at for step in found(series(draw, 20, stepping(19, 1 / 1.25), noise=0.02))] for _ in range(40)]
    assert newest.count([19]) >= 38
    for odd in (0, 7, 18):
        level = [1.5 if number == odd else 2.0 for number in range(20)]
        assert sum(bool(found(series(draw, 20, level.__getitem__, noise=0.02))) for _ in range(40)) <= 1


def test_two_steps_are_told_apart() -> None:
    def level(number: int) -> float:
        return 2.0 if number < 12 else 1.5 if number < 24 else 1.8

    told = found(series(random.Random(5), 40, level, noise=0.02))
    assert [(step.at, step.verdict) for step in told] == [(12, "slower"), (24, "faster")]


def test_a_sure_step_within_the_margin_is_no_news() -> None:
    for factor, expected in ((1 / 1.03, []), (1 / 1.08, [20])):
        runs = series(random.Random(6), 40, stepping(20, factor), noise=0.002, within=0.002)
        assert [step.at for step in found(runs)] == expected


def test_small_steps_that_only_together_pass_the_margin_are_one() -> None:
    def level(number: int) -> float:
        return 2.0 * math.exp(0.0 if number < 10 else 0.045 if number < 20 else 0.06)

    told = found(series(random.Random(12), 30, level, noise=0.0005, within=0.0005))
    assert [(step.at, step.verdict) for step in told] == [(10, "faster")]


def test_runs_or_processes_that_are_at_both_levels_tell_none_apart() -> None:
    draw = random.Random(13)
    for back, expected in ((True, []), (False, [14])):
        level = [2.0] * 14 + [2.6, 2.6, 2.0 if back else 2.6, 2.6]
        assert [step.at for step in found(series(draw, 18, level.__getitem__, noise=0.01))] == expected
    for share, expected in ((5, []), (0, [19])):
        runs = series(draw, 19, noise=0.01)
        newest = [1.5 + number / 1000 for number in range(12 - share)] + [2.6 + number / 1000 for number in range(share)]
        assert [step.at for step in found([*runs, run(19, {CASE: measured(newest)})])] == expected


def test_few_runs_tell_nothing_however_large_the_step() -> None:
    for runs, expected in ((RUNS_NEEDED - 1, []), (RUNS_NEEDED, [3])):
        assert [step.at for step in found(series(random.Random(7), runs, stepping(3, 0.5), noise=0.01))] == expected


def test_few_processes_do_not_make_a_step_of_the_newest_run() -> None:
    for processes, expected in ((4, []), (12, [19])):
        runs = series(random.Random(8), 20, stepping(19, 0.7), noise=0.01, within=0.01, processes=processes)
        assert [step.at for step in found(runs)] == expected


def test_processes_that_scatter_hide_a_step_of_runs_that_happen_to_agree() -> None:
    def runs(width: float) -> list[Run]:
        shape = [math.exp(width * number / 6) for number in range(-6, 7)]
        level = stepping(6, 1 / 1.2)
        return [run(number, {CASE: measured([level(number) * each for each in shape])}) for number in range(12)]

    assert [step.at for step in found(runs(0.02))] == [6]
    assert found(runs(0.5)) == []


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(6, 40), st.floats(0.2, 5), st.floats(0.5, 2))
def test_steps_turn_round_with_the_ratio_and_do_not_see_its_scale(seed: int, runs: int, scale: float, factor: float) -> None:
    def turned(change: Callable[[float], float]) -> list[Step]:
        made = series(random.Random(seed), runs, stepping(runs // 2, factor))
        return found(
            [one._replace(cases={CASE: measured([change(v) for v in one.cases[CASE].speedups.values()])}) for one in made]
        )

    plain, inverse, scaled = turned(lambda value: value), turned(lambda value: 1 / value), turned(lambda value: value * scale)
    assert [step.at for step in plain] == [step.at for step in inverse] == [step.at for step in scaled]
    opposite = {"faster": "slower", "slower": "faster"}
    assert [step.verdict for step in inverse] == [opposite[step.verdict] for step in plain]
    for one, other in zip(plain, scaled, strict=True):
        assert tuple(one.change) == pytest.approx(tuple(other.change))
        assert one.before.median * scale == pytest.approx(other.before.median)


def test_another_definition_is_another_series() -> None:
    runs = [
        run(number, {CASE: measured([2.0 + number % 2] * 8, threads=1 + number % 2), "other": measured([3.0] * 8)})
        for number in range(8)
    ]
    told = all_series(list(reversed(runs)))
    assert [(one.case, len(one.points), one.note) for one in told] == [
        (CASE, 4, ""),
        (CASE, 4, "threads was 1 and is 2"),
        ("other", 8, ""),
    ]
    assert [point.run.name for point in told[0].points] == [f"000{number}_run.json" for number in (1, 3, 5, 7)]


def test_a_definition_is_told_beside_the_one_just_before() -> None:
    runs = [run(number, {CASE: measured([2.0] * 8, threads=number)}) for number in range(1, 4)]
    assert [one.note for one in all_series(runs)] == ["", "threads was 1 and is 2", "threads was 2 and is 3"]


def test_series_take_the_interval_of_the_run() -> None:
    case = measured([1.0, 2.0, 3.0])
    assert all_series([run(0, {CASE: case})])[0].points[0].speedup == interval(case)


def test_a_thousand_runs_that_wander_take_a_moment() -> None:
    draw = random.Random(9)
    walk = [2.0]
    while len(walk) < 1000:
        walk.append(walk[-1] * math.exp(draw.gauss(0, 0.05)))
    [one] = all_series(series(draw, 1000, walk.__getitem__, processes=8))
    steps(one.points)  # the first call imports
    start = time.process_time()
    assert len(steps(one.points)) > 20
    assert time.process_time() - start < 1


def test_sparkline_is_flat_where_nothing_is_news_and_joins_neighbours() -> None:
    assert sparkline([1.0, 1.001, 1.002]) == "▁▁▁"
    assert sparkline([1.0, 2.0, 4.0]) == "▁▅█"
    assert sparkline([1.0, 1.0, 4.0, 4.0], most=2) == "▁█"
    assert len(sparkline([1.0 + number for number in range(999)], most=100)) == 100
