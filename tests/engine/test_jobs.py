"""When a case needs no further process, and what the plan of a run tells."""

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


@given(st.lists(st.floats(0.1, 10), max_size=12), st.integers(1, 12))
def test_a_case_is_done_when_it_is_narrow_or_has_all_processes(speedups: list[float], processes: int) -> None:
    outcome = outcome_of(speedups)
    if processes <= 8:
        assert job(fine).is_done(outcome, Effort(processes, 1e9, 1.0)) == (len(speedups) >= processes)
    else:
        clear = len(speedups) >= 8 and is_clear(speedups)
        assert job(fine).is_done(outcome, Effort(processes, 1e9, 1.0)) == (clear or len(speedups) >= processes)
    assert job(fine).is_done(outcome, Effort(processes, 1e-12, 1.0)) == (
        len(speedups) >= processes or (len(speedups) >= 8 and job(fine).is_done(outcome, Effort(99, 1e-12, 1.0)))
    )


def test_the_plan_tells_cases_processes_and_time() -> None:
    text = plan_text([job(fine), job(fine, 1)], Effort(9, 0.05, 20.0))
    assert text.startswith("2 cases in up to 9 fresh processes, about ")
    assert "at most 20 s (--processes, --budget)" in text


def test_a_narrow_case_goes_on_until_a_verdict_is_possible() -> None:
    odd = [0.89, 0.9, 0.91, 0.9, 1.02, 0.9, 0.91, 0.89, 0.9]
    effort = Effort(12, 0.05, 1.0)
    assert not job(fine).is_done(outcome_of(odd), effort)
    assert job(fine).is_done(outcome_of([value for value in odd if value < 1]), effort)
    assert job(fine).is_done(outcome_of([1.0 + number / 1000 for number in range(8)]), effort)


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
