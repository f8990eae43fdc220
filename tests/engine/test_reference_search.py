"""The reference is chosen by several processes, once for a whole run, and every process of the run is told which it is."""

import random
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.cases import Case
from bench.engine import reference_search
from bench.engine.jobs import Effort, Job, Results, Spent
from bench.engine.journal import Journal, identity
from bench.engine.pairing import Plan, Racer
from bench.engine.processes import Means, fork_server_for
from bench.engine.reference_search import CLEARLY, fastest, measure_against_best, variant_jobs
from bench.runs.outcome import Outcome
from bench.runs.outcome import Race as Pairs
from bench.works import reference
from bench.works.compiled import COMPILED
from bench.works.once_per_run import KNOWN
from bench.works.reference import LAUNCHED, VECTOR, dense_case, training_key, variant_key
from bench.works.replays import Works, listed
from tests.engine.test_jobs import outcome_of
from tests.engine.test_processes import broken, cases_of, fine
from tests.works.test_reference import BATCH_MAJOR, FEATURE_MAJOR, STEP

TRAINING = STEP._replace(op="training_step", shape="6x8x4b16")
TRAINING_DENSE = dense_case(TRAINING)


def jobs_of(*cases: Case) -> list[Job]:
    return [Job(f"{case.op} {case.id}", __name__, "known_way", case) for case in cases]


def chosen(jobs: list[Job], *outcomes: Outcome) -> list[str]:
    found = fastest(jobs, {job.name: outcome for job, outcome in zip(jobs, outcomes, strict=True)})
    found.pop(training_key(jobs[0].case._replace(protocol="-")), None)
    assert all(gain == 1.0 if way == BATCH_MAJOR else gain > CLEARLY for way, gain in found.values())
    return [way for way, _ in found.values()]


STEP_WAYS = variant_jobs(jobs_of(STEP))


@given(st.lists(st.floats(0.5, 2.0), min_size=1, max_size=9))
def test_a_layout_is_chosen_where_most_processes_find_it_clearly_faster(speedups: list[float]) -> None:
    clearly = sum(value > CLEARLY for value in speedups)
    [way] = chosen(STEP_WAYS, outcome_of(speedups))
    if clearly * 2 > len(speedups):
        assert way == FEATURE_MAJOR
    elif clearly * 2 < len(speedups):
        assert way == BATCH_MAJOR


@given(st.integers(0, 2**32), st.floats(0.1, 10.0), st.floats(0.1, 10.0))
def test_two_processes_of_five_that_are_disturbed_do_not_change_the_choice(seed: int, one: float, other: float) -> None:
    draw = random.Random(seed)
    for truth, expected in ((1.1, FEATURE_MAJOR), (1.0, BATCH_MAJOR), (0.9, BATCH_MAJOR)):
        speedups = [one, other, *(truth * draw.uniform(0.99, 1.01) for _ in range(3))]
        draw.shuffle(speedups)
        assert chosen(STEP_WAYS, outcome_of(speedups)) == [expected]


@pytest.fixture
def _compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "can_compile", lambda _: True)


@pytest.mark.usefixtures("_compiling")
def test_the_fastest_of_three_ways_is_chosen_and_one_that_failed_is_none() -> None:
    jobs = variant_jobs(jobs_of(TRAINING))
    assert [job.case.protocol for job in jobs] == [FEATURE_MAJOR, COMPILED]
    fast, faster, slow = (outcome_of([value] * 5) for value in (1.2, 1.3, 0.8))
    assert chosen(jobs, fast, faster) == [COMPILED]
    assert chosen(jobs, faster, fast) == [FEATURE_MAJOR]
    assert chosen(jobs, slow, slow) == [BATCH_MAJOR]
    assert chosen(jobs, fast, outcome_of([1.3] * 5, "it does not compile")) == [FEATURE_MAJOR]
    assert chosen(jobs, outcome_of([]), outcome_of([])) == [BATCH_MAJOR]
    assert fastest(jobs[:1], {jobs[0].name: outcome_of([1.1, 1.3, 1.2])}) == {variant_key(TRAINING_DENSE): (FEATURE_MAJOR, 1.2)}


@pytest.mark.usefixtures("_compiling")
def test_each_reference_is_searched_for_once_and_only_where_there_is_a_choice() -> None:
    cases = [
        *(STEP._replace(layer=layer, sparsity=at, skew=at) for layer in ("csr", "tiled") for at in (0.5, 0.9)),
        STEP._replace(op="update", update="set"),  # against the same step
        STEP._replace(op="forward"),
        STEP._replace(op="beside"),  # against the same forward pass
        STEP._replace(regime="cold"),
        STEP._replace(op="forward", shape="6x8b1"),
        TRAINING,
        TRAINING._replace(shape="6x8x4b1"),
        TRAINING._replace(device="cuda"),
        STEP._replace(device="cuda", regime="graph"),
        TRAINING._replace(device="cuda", regime="graph"),
        STEP._replace(device="cuda", op="forward", shape="6x8b1", regime="graph-cold"),
        TRAINING._replace(op="train", shape="7x8x4b16", data="digits", model="narrow", asked_epochs=5, distribution="erk"),
    ]
    searched = variant_jobs(jobs_of(*cases))
    found = [(job.case.protocol, job.case.op, job.case.shape, job.case.device, job.case.regime) for job in searched]
    assert found == [
        (FEATURE_MAJOR, "step", "6x8b4", "cpu", "warm"),
        (FEATURE_MAJOR, "forward", "6x8b4", "cpu", "warm"),
        (FEATURE_MAJOR, "step", "6x8b4", "cpu", "cold"),
        (FEATURE_MAJOR, "training_step", "6x8x4b16", "cpu", "warm"),
        (COMPILED, "training_step", "6x8x4b16", "cpu", "warm"),
        (COMPILED, "training_step", "6x8x4b1", "cpu", "warm"),
        (FEATURE_MAJOR, "training_step", "6x8x4b16", "cuda", "warm"),
        (COMPILED, "training_step", "6x8x4b16", "cuda", "warm"),
        (FEATURE_MAJOR, "step", "6x8b4", "cuda", "graph"),
        (FEATURE_MAJOR, "training_step", "6x8x4b16", "cuda", "graph"),
        (COMPILED, "training_step", "6x8x4b16", "cuda", "graph"),
        (LAUNCHED, "training_step", "6x8x4b16", "cuda", "graph"),
        (VECTOR, "forward", "6x8b1", "cuda", "graph-cold"),
        (COMPILED, "training_step", "7x8x4b16", "cpu", "warm"),  # a training's batches are always batch-major
    ]
    assert len({job.name for job in searched}) == len(found)


@pytest.mark.usefixtures("_compiling")
@given(st.floats(0.5, 2.0), st.floats(0.5, 2.0))
def test_trainings_are_compiled_where_that_is_faster_whatever_a_layout_gains(layout: float, compiled: float) -> None:
    jobs = variant_jobs(jobs_of(TRAINING))
    found = fastest(jobs, {job.name: outcome_of([gain]) for job, gain in zip(jobs, (layout, compiled), strict=True)})
    expected = (COMPILED, compiled) if compiled > CLEARLY else (BATCH_MAJOR, 1.0)
    assert found[training_key(TRAINING_DENSE)] == expected


def test_a_way_is_raced_against_the_first_on_the_reference_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference_search, "works_of", lambda way, dense: [lambda: (way, dense)])
    raced: list[tuple[Any, Any]] = []

    class Race:
        once = False

        def __call__(self, candidate: Works, reference: Works, device: str, plan: Plan | None = None) -> None:
            raced.append((listed(candidate)[0](), listed(reference)[0]()))

    [job] = STEP_WAYS
    assert reference_search.variant_race(job.case, Race()) == {}
    assert raced == [((FEATURE_MAJOR, dense_case(STEP)), (BATCH_MAJOR, dense_case(STEP)))]


def known_way(case: Case, race: Racer) -> dict[str, Any]:
    return fine(case, race) | {"way": KNOWN[variant_key(dense_case(case))][0], "found": KNOWN.get("found")}


def measured(jobs: list[Job], journal: Journal | None = None, processes: int = 3) -> tuple[Results, list[str]]:
    told: list[str] = []
    with closing(fork_server_for(jobs)) as fork_server:
        means = Means(fork_server, progress=told.append, journal=journal)
        results = measure_against_best(jobs, Effort(processes, 1e9, 60.0), told.append, means)
    return results, list(dict.fromkeys(map(cases_of, told)))


SEARCHED = [f"dense's layouts, process {number} of 3: 1" for number in (1, 2, 3)]
MEASURED = [f"process {number} of 3: 2" for number in (1, 2, 3)]
BOTH = jobs_of(STEP, STEP._replace(sparsity=0.5))


def faster(case: Case, race: Racer) -> dict[str, Any]:
    race.race = Pairs([1e-3] * 6, [2e-3] * 6)  # type: ignore[attr-defined]  # the worker's own
    return {}


def slower(case: Case, race: Racer) -> dict[str, Any]:
    race.race = Pairs([2e-3] * 6, [1e-3] * 6)  # type: ignore[attr-defined]
    return {}


# Two processes that find no gain outvote a third; of a gain all of them say how large it is.
@pytest.mark.parametrize(("body", "searched", "way"), [(faster, SEARCHED, FEATURE_MAJOR), (slower, SEARCHED[:2], BATCH_MAJOR)])
def test_the_search_comes_first_and_every_process_knows_what_it_found(
    monkeypatch: pytest.MonkeyPatch, body: Any, searched: list[str], way: str
) -> None:
    jobs = [job._replace(module=__name__, function=body.__name__) for job in variant_jobs(BOTH)]
    monkeypatch.setattr(reference_search, "variant_jobs", lambda _: jobs)
    results, told = measured(BOTH)
    assert told == [*searched, *MEASURED]
    assert list(results.outcomes) == [job.name for job in BOTH]  # and nothing of the search
    assert {outcome.facts["way"] for outcome in results.outcomes.values()} == {way}
    assert sum(results.spent) > 0


def test_a_way_that_fails_is_told_and_takes_no_case_down(monkeypatch: pytest.MonkeyPatch) -> None:
    way = variant_jobs(BOTH)[0]._replace(module=broken.__module__, function=broken.__name__)
    monkeypatch.setattr(reference_search, "variant_jobs", lambda _: [way])
    results, told = measured(BOTH)
    assert f"{way.name}: ZeroDivisionError: no such number; dense is timed in another way" in told
    assert all(outcome.failure is None for outcome in results.outcomes.values())
    assert {outcome.facts["way"] for outcome in results.outcomes.values()} == {BATCH_MAJOR}


def journal_of(folder: Path, jobs: list[Job], *said: tuple[int, Job, float]) -> Journal:
    """Return the journal of a run broken off, with a speed-up for each process and job that it holds."""
    run = identity("machine", [job.name for job in (*variant_jobs(jobs), *jobs)])
    journal = Journal.start(folder, run)
    spent = dict.fromkeys(("whole", "raced", "timed"), 0.0)
    for process, job, speedup in said:
        race = Pairs([1.0] * 6, [speedup] * 6)
        journal.add(process, job.name, {"known": {}, "race": race, "facts": {"way": "told before"}, "spent": spent})
    journal.close(is_saved=False)
    return Journal.resume(folder, run)


@pytest.mark.parametrize(("gain", "way"), [(2.0, FEATURE_MAJOR), (0.5, BATCH_MAJOR)])
def test_a_run_broken_off_in_its_cases_keeps_the_ways_it_measured_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gain: float, way: str
) -> None:
    [search] = variant_jobs(BOTH)
    finding = Mock(return_value=({"found": "anew"}, Spent()))
    monkeypatch.setattr(reference_search, "found_out", finding)
    # Two of three processes had found the way, and the time for the search was over.
    journal = journal_of(tmp_path, BOTH, (0, search, gain), (1, search, gain), (0, BOTH[0], 1.0))
    results, told = measured(BOTH, journal)
    journal.close(is_saved=True)
    assert told == ["process 1 of 3: 1", *MEASURED[1:]]
    assert [outcome.facts["way"] for outcome in results.outcomes.values()] == ["told before", way]
    assert [list(call.args[0]) for call in finding.call_args_list] == [BOTH, []]
    assert results.outcomes[BOTH[1].name].facts["found"] == "anew"  # of which the journal says nothing


@pytest.mark.parametrize(("gain", "searched", "way"), [(0.01, [], BATCH_MAJOR), (100.0, SEARCHED[2:], FEATURE_MAJOR)])
def test_a_run_broken_off_in_the_search_goes_on_where_it_must(
    tmp_path: Path, gain: float, searched: list[str], way: str
) -> None:
    [search] = variant_jobs(BOTH)
    journal = journal_of(tmp_path, BOTH, (0, search, gain), (1, search, gain))
    results, told = measured(BOTH, journal)
    journal.close(is_saved=True)
    assert told == [*searched, *MEASURED]
    assert {outcome.facts["way"] for outcome in results.outcomes.values()} == {way}


@pytest.mark.parametrize("is_finding", [True, False])
def test_ctrl_c_before_the_cases_measures_none(monkeypatch: pytest.MonkeyPatch, is_finding: bool) -> None:
    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    if is_finding:
        monkeypatch.setattr(reference_search, "found_out", Mock(side_effect=KeyboardInterrupt))
    with closing(fork_server_for(BOTH)) as fork_server:
        results = measure_against_best(BOTH, Effort(3, 1e9, 60.0), print, Means(fork_server, progress=interrupt))
    assert results.interrupted
    assert all(not outcome.races for outcome in results.outcomes.values())
    assert list(results.outcomes) == [job.name for job in BOTH]
