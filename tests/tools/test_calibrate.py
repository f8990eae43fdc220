import json
import math
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import __main__ as tool
from bench.engine import calibration
from bench.engine.calibration import PLANTED, jobs_of
from bench.engine.jobs import Effort, Job, Results, Spent
from bench.findings.calibration import Calibration, judge
from bench.runs.outcome import Outcome, Race
from bench.tables.calibration import lines, rate
from bench.tools import calibrate
from tests.strategies import seeds


def outcomes(draw: random.Random, deviation: float) -> dict[Job, Outcome]:
    """What twelve processes would say of every comparison of a run, were their noise normal."""
    found = {}
    for job in jobs_of("cpu", 1):
        outcome = Outcome()
        truth = 1 / (1 + int(job.case.data) / 100)
        outcome.races = [Race([1.0], [truth * math.exp(draw.gauss(0, deviation))]) for _ in range(12)]
        found[job] = outcome
    return found


@settings(max_examples=4)  # each is a whole run of comparisons
@given(seeds)
def test_comparisons_know_their_truth_and_a_quiet_machine_finds_all(seed: int) -> None:
    found = judge(0, outcomes(random.Random(seed), 0.005))
    assert len(found) == len(jobs_of("cpu", 1))
    for one in found:
        assert one.truth == pytest.approx(1 / (1 + one.planted / 100))
        assert one.interval.low <= one.interval.median <= one.interval.high
        if one.planted != 5:  # which lies on the margin itself
            assert one.verdict == one.verdict_alone == ("same" if one.planted == 0 else "slower")


def test_alone_among_identical_code_a_difference_is_harder_to_find() -> None:
    found = judge(0, outcomes(random.Random(0), 0.06))
    together, alone = (sum(getattr(one, field) == "slower" for one in found) for field in ("verdict", "verdict_alone"))
    assert 0 < alone < together


def test_a_failed_comparison_ends_the_calibration_with_its_reason_and_keeps_complete_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs = iter(range(3))

    def measured(*_: object) -> Results:
        found = {job.name: outcome for job, outcome in outcomes(random.Random(0), 0.01).items()}
        if next(runs) == 1:
            next(iter(found.values())).failure = "the layer is wrong; nothing is timed"
        return Results(found, interrupted=False, out_of_time=False, spent=Spent())

    monkeypatch.setattr(calibrate, "measure_all", measured)
    told: list[str] = []
    jobs = jobs_of("cpu", 1)
    found = calibrate.calibrate(jobs, Effort(12, 0.05, 60.0), told.append)
    assert {one.run for one in found.comparisons} == {0}
    assert found.failure == f"{jobs[0].name}: the layer is wrong; nothing is timed"
    assert told[-1] == f"{found.failure}; 1 complete runs are kept"


def test_every_work_is_planted_every_slowdown_and_identical_code_twice() -> None:
    works: dict[str, list[int]] = {}
    for job in jobs_of("cpu", 1):
        works.setdefault(job.name.rpartition(" ")[0], []).append(int(job.case.data))
    assert len(works) > 10
    assert all(planted == list(PLANTED) for planted in works.values())


@pytest.mark.parametrize(("planted", "calls"), [(0, (1, 1)), (5, (21, 20)), (10, (11, 10)), (20, (6, 5))])
def test_what_is_planted_is_more_calls_of_the_same_work(
    planted: int, calls: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [0, 0]
    arms = iter(range(2))

    def operation(*_: object) -> object:
        arm = next(arms)
        return lambda: made.__setitem__(arm, made[arm] + 1)

    monkeypatch.setattr(calibration, "operation", operation)
    case = next(job.case for job in jobs_of("cpu", 1) if job.case.data == str(planted))
    calibration.clone_race(case, lambda candidate, reference, *_: (candidate(), reference()))  # type: ignore[arg-type]
    assert tuple(made) == calls


@pytest.mark.parametrize(
    ("hits", "of", "text"),
    [  # Clopper and Pearson's bounds, as tabulated: the rule of three, and 10 of 20
        (0, 200, "0 of 200 = 0.0% [0.0% 1.8%]"),
        (200, 200, "200 of 200 = 100.0% [98.2% 100.0%]"),
        (10, 20, "10 of 20 = 50.0% [27.2% 72.8%]"),
    ],
)
def test_rates_have_their_interval(hits: int, of: int, text: str) -> None:
    assert rate(hits, of) == text


def test_the_table_counts_what_the_comparisons_say() -> None:
    found = judge(0, outcomes(random.Random(1), 0.01))
    spent = Spent(timed=60.0, warming=20.0, building=10.0, starting=8.0, bookkeeping=2.0)
    text = "\n".join(lines(Calibration(found, 100.0, len(found), spent), 40e-9))
    identical = sum(one.planted == 0 for one in found)
    slow = [one for one in found if one.planted == 10]
    assert f"False alarms on identical code: 0 of {identical} = 0.0%" in text
    assert f"{len(slow)} of {len(slow)} = 100.0%" in text
    assert "starting processes and bookkeeping: 12.5% of the time in which works ran; its loop and clock add 40 ns" in text
    covered = sum(one.interval.low <= one.truth <= one.interval.high for one in found)
    assert f"The interval holds the truth: {covered} of {len(found)} = " in text


def test_no_complete_run_is_said() -> None:
    assert "no run is complete: ask for more time with --budget" in "\n".join(lines(Calibration([], 1.0, 0, Spent()), 0.0))


def test_calibrate_runs_tells_its_progress_and_saves_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(calibration, "OPERATIONS", ("forward",))
    monkeypatch.setattr(calibration, "SHAPES", ("8x8b4",))
    monkeypatch.setattr(calibration, "LAYER_NAMES", ("csr",))
    path = tmp_path / "calibration.json"
    arguments = [
        "calibrate",
        "--processes",
        "2",
        "--comparisons",
        "5",
        "--threads",
        "1",
        "--budget",
        "60",
        "--load",
        "1",
        "--precision",
        "9",
    ]
    assert tool.main([*arguments, "--json", str(path)]) == 0
    told = capsys.readouterr().out
    assert "7 comparisons a run in up to 2 fresh processes, at most 60 s (--budget)" in told
    assert "  process 1 of 2: 7 cases in " in told
    assert "run 2 of 2: 14 comparisons in " in told
    assert "; false alarms 0 of 8, slowdowns found 5 %: 0 of 2, 10 %: 0 of 2, 20 %: 0 of 2" in told  # two decide nothing
    assert "False alarms on identical code: 0 of 8" in told
    saved = json.loads(path.read_text())
    assert saved["kind"] == "calibration"
    assert saved["load"] == 1
    assert [one["planted"] for one in saved["comparisons"]] == list(PLANTED) * 2
    assert all(len(one["speedups"]) == 2 for one in saved["comparisons"])
    assert saved["machine"]["cpu"]["logical_cores"] > 0
    assert [entry.name for entry in tmp_path.iterdir()] == ["calibration.json"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--budget", "soon"], "expected a number above 0, got 'soon'; for example 0.05"),
        (["--processes", "0"], "expected a whole number from 1 to 999999, got '0'; for example 3"),
        (["--json", "/nowhere/at/all.json"], "--json: expected a path in a folder that exists, got /nowhere/at/all.json"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        tool.main(["calibrate", *arguments])
    assert caught.value.code == 2
    assert sentence in capsys.readouterr().err


@given(st.integers(1, 400), st.data())
def test_a_rates_interval_holds_the_rate(of: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, of))
    low, high = (float(part.strip("%]")) for part in rate(hits, of).partition("[")[2].split())
    assert low - 0.05 <= 100 * hits / of <= high + 0.05
