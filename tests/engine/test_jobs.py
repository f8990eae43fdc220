"""When a case needs no further process, and what the plan of a run tells."""

import itertools
import statistics

from hypothesis import given
from hypothesis import strategies as st

from bench.engine.jobs import Effort, Spent, plan_text
from bench.runs.outcome import Outcome, Race
from bench.statistics.verdicts import is_clear
from tests.engine.test_processes import fine, job


def outcome_of(speedups: list[float], failure: str | None = None) -> Outcome:
    outcome = Outcome()
    for process, value in enumerate(speedups):
        outcome.add(process, Race([1.0], [value]), {})
    outcome.failure = failure
    return outcome


@given(st.lists(st.floats(0.1, 10), max_size=12), st.integers(1, 12), st.integers(3, 8))
def test_a_case_is_done_when_it_is_clear_or_has_all_processes(speedups: list[float], processes: int, least: int) -> None:
    outcome = outcome_of(speedups)
    effort = Effort(processes, 1e9, 1.0, least=least)
    enough = len(speedups) >= least and is_clear(speedups)
    assert job(fine).is_done(outcome, effort) == (enough or len(speedups) >= processes)


def test_a_large_effect_is_done_by_few_processes_and_a_small_one_goes_on() -> None:
    effort = Effort(12, 0.05, 1.0)
    six = [6.15, 5.6, 6.9, 5.9, 6.4]  # their interval is wider than 5 %
    assert not job(fine).is_done(outcome_of(six[:4]), effort)
    assert job(fine).is_done(outcome_of(six), effort)
    assert job(fine).is_done(outcome_of([1 / value for value in six]), effort)
    assert job(fine).is_done(outcome_of([6.1, 6.2, 6.0]), effort._replace(least=3))
    assert not job(fine).is_done(outcome_of(six), effort._replace(least=8))  # as where a change is to be told
    assert not job(fine).is_done(outcome_of([1.15, 1.1, 1.2, 1.12, 1.17]), effort)


def test_an_interval_as_wide_as_the_effect_is_not_done_however_clear_it_is() -> None:
    wide = [1.09, 1.26, 1.1, 1.22, 1.1, 1.2, 1.14, 1.12, 1.17]
    assert is_clear(wide)
    assert not job(fine).is_done(outcome_of(wide), Effort(12, 0.05, 1.0))
    assert job(fine).is_done(outcome_of(wide), Effort(12, 0.5, 1.0))


@given(st.integers(4, 5), st.lists(st.floats(0.5, 2.0), min_size=1, max_size=4))
def test_where_a_side_is_asked_for_a_case_is_done_once_no_further_process_could_change_it(
    processes: int, speedups: list[float]
) -> None:
    effort = Effort(processes, 1e9, 1.0, side_of=1.02)
    more = itertools.combinations_with_replacement([0.0, 10.0], processes - len(speedups))
    sides = {statistics.median([*speedups, *others]) > 1.02 for others in more}
    expected = len(sides) == 1 or len(speedups) == processes
    assert job(fine).is_done(outcome_of(speedups), effort) == expected


def test_the_plan_tells_cases_processes_and_time() -> None:
    text = plan_text([job(fine), job(fine, 1)], Effort(9, 0.05, 20.0))
    assert text.startswith("2 cases in up to 9 fresh processes, about ")
    assert "at most 20 s (--processes, --budget)" in text


def test_a_narrow_case_goes_on_until_a_verdict_is_possible() -> None:
    odd = [0.89, 0.9, 0.91, 0.9, 1.02, 0.9, 0.91, 0.89, 0.9]
    effort = Effort(12, 0.05, 1.0)
    assert not job(fine).is_done(outcome_of(odd), effort)
    assert not job(fine).is_done(outcome_of([value for value in odd if value < 1]), effort)
    assert job(fine).is_done(outcome_of([value for value in [*odd, 0.9] if value < 1]), effort)
    assert not job(fine).is_done(outcome_of([1.0 + number / 1000 for number in range(5)]), effort)
    assert job(fine).is_done(outcome_of([1.0 + number / 1000 for number in range(6)]), effort)


def test_a_case_that_failed_needs_no_further_process() -> None:
    assert job(fine).is_done(outcome_of([1.0], "the layer is wrong"), Effort(12, 0.05, 1.0))


def test_the_plan_of_trainings_has_a_process_for_each_at_most_and_no_more_time_than_the_budget() -> None:
    trainings = [job(fine, op="train", seed=seed) for seed in range(4)]
    assert plan_text(trainings, Effort(9, 0.05, 20.0)) == (
        "4 cases in up to 4 fresh processes, about 4 s and at most 20 s (--processes, --budget)"
    )
    assert "about 3 s and at most 3 s" in plan_text(trainings, Effort(9, 0.05, 3.0))
    assert plan_text([*trainings, job(fine)], Effort(9, 0.05, 20.0)).startswith("5 cases in up to 9 fresh processes, about 5 s")


def test_where_the_time_went_is_told_by_name() -> None:
    assert str(Spent(timed=5.0, warming=2.5, building=1.25, starting=1.0, bookkeeping=0.25)) == (
        "50.0% in timed rounds, 25.0% warming up, 12.5% building and checking, 10.0% starting processes, 2.5% bookkeeping"
    )
