"""When a case needs no further process, what the plan of a run tells, and what of its time goes where."""

import itertools
import statistics
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.engine import reference_search
from bench.engine.jobs import Effort, Job, Results, Spent, plan_text
from bench.engine.processes import Means, fork_server_for
from bench.engine.reference_search import expected_seconds, measure_against_best, variant_jobs
from bench.engine.timed import SAVED_UP, SHARED
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
def test_where_a_case_matters_beyond_a_factor_it_is_done_once_its_median_cannot_be(
    processes: int, speedups: list[float]
) -> None:
    effort = Effort(processes, 1e9, 1.0, beyond=1.02)
    more = itertools.combinations_with_replacement([0.0, 10.0], processes - len(speedups))
    can_be = any(statistics.median([*speedups, *others]) > 1.02 for others in more)
    assert job(fine).is_done(outcome_of(speedups), effort) == (not can_be or len(speedups) == processes)


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


BOTH = [job(fine, op="step"), job(fine, 50, op="step")]  # of one reference, in two layouts


@pytest.mark.parametrize(("processes", "budget"), [(12, 100.0), (2, 10.0)])
def test_the_search_has_a_part_of_the_budget_and_the_cases_the_rest(
    monkeypatch: pytest.MonkeyPatch, processes: int, budget: float
) -> None:
    asked: list[tuple[list[Job], Effort]] = []

    def spending(jobs: list[Job], effort: Effort, *_: Any, **__: Any) -> Results:
        asked.append((jobs, effort))
        now.append(now[-1] + 1.0)
        return Results({job.name: outcome_of([1.0]) for job in jobs}, False, False, Spent(timed=1.5, building=0.5))

    def finding(_: object, __: object, until: float, ___: object, **____: object) -> tuple[dict[str, Any], Spent]:
        assert until == reference_search.SHARE * budget
        now.append(now[-1] + 2.0)
        return {}, Spent(building=2.0)

    now = [0.0]
    monkeypatch.setattr(reference_search, "found_out", finding)
    monkeypatch.setattr("bench.engine.reference_search.time.monotonic", lambda: now[-1])
    monkeypatch.setattr(reference_search, "measure_all", spending)
    effort = Effort(processes, 0.05, budget)
    with closing(fork_server_for(BOTH)) as fork_server:
        results = measure_against_best(BOTH, effort, lambda _: None, Means(fork_server))
    [(searched, search), (jobs, left)] = asked
    assert (searched, jobs) == (variant_jobs(BOTH), BOTH)
    assert (search.processes, search.budget) == (min(processes, reference_search.PROCESSES), reference_search.SHARE * budget)
    assert left.budget == budget - 5.0  # of which the search has taken one, and what was found out before it twice two
    assert left == effort._replace(budget=left.budget)
    assert sum(results.spent) == 8.0


def test_the_plan_knows_both_parts_of_the_time_before_the_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    effort = Effort(12, 0.05, 30.0)
    share = reference_search.SHARE * effort.budget
    searching = expected_seconds(BOTH, effort)
    assert 0 < searching <= share
    monkeypatch.setattr(reference_search, "preparations", lambda _: [("", "", job.case) for job in BOTH])
    assert searching < expected_seconds(BOTH, effort) <= searching + share
    monkeypatch.setattr(reference_search, "preparations", lambda _: [("", "", job.case) for job in BOTH * 100])
    assert expected_seconds(BOTH, effort) == searching + share


def test_that_cores_are_shared_the_search_tells_the_cases_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def measuring(jobs: list[Job], _: object, __: object, known: dict[str, Any], **___: object) -> Results:
        asked.append(dict(known))
        found = {SHARED: True, SAVED_UP: 0.5, "not captured": "by a variant that is not the reference"}
        return Results({job.name: outcome_of([1.0]) for job in jobs}, False, False, Spent(), found)

    monkeypatch.setattr(reference_search, "found_out", lambda *_, **__: ({}, Spent()))
    monkeypatch.setattr(reference_search, "measure_all", measuring)
    with closing(fork_server_for(BOTH)) as fork_server:
        measure_against_best(BOTH, Effort(2, 0.05, 10.0), lambda _: None, Means(fork_server))
    search, cases = asked
    assert search == {}
    assert cases.items() >= {SHARED: True, SAVED_UP: 0.5}.items()
    assert "not captured" not in cases
