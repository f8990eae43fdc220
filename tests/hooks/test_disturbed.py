"""What other processes disturbed has no figure, and the user is told."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from _pytest.terminal import TerminalReporter

from bench.engine.jobs import Effort
from bench.hooks import measuring
from bench.hooks.measuring import disturbed, far_apart, without_a_turn
from bench.machine.facts import facts
from bench.runs.outcome import Outcome, Race
from tests.helpers.fake_engine import replace_engine
from tests.helpers.in_process import SMALL, run

FORWARD = [*SMALL, "--op", "forward", "--layer", "csr,masked", "-p", "no:unraisableexception", "-rs"]


def test_a_case_that_was_disturbed_throughout_is_skipped_and_the_others_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_engine(monkeypatch)
    (tmp_path / "levels.json").write_text(json.dumps({"disturbed": "csr"}))
    done = run(*FORWARD, "--benchmark-json=run.json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert (
        "every pair was disturbed by other processes; try fewer --threads, more --budget, or a quieter machine" in done.stdout
    )
    assert "33% of all pairs were disturbed by other processes, and do not count" in done.stdout
    assert "1 case is left out, all of whose pairs were: try fewer --threads, or a quieter machine" in done.stdout
    saved = json.loads((tmp_path / "run.json").read_text())["benchmarks"]
    assert {one["extra_info"]["layer"] for one in saved} == {"dense", "masked"}


def test_what_is_gone_as_it_was_disturbed_fails_the_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_engine(monkeypatch)
    storage = f"--benchmark-storage={tmp_path / 'runs'}"
    assert run(*FORWARD, storage, "--benchmark-autosave", cwd=tmp_path).returncode == 0
    (tmp_path / "levels.json").write_text(json.dumps({"disturbed": "csr"}))
    done = run(*FORWARD, storage, "--benchmark-compare", "--fail-slower=10%", cwd=tmp_path)
    assert done.returncode == 1
    assert "gone" in done.stdout


def test_where_nothing_was_disturbed_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_engine(monkeypatch)
    assert "disturbed" not in run(*FORWARD, cwd=tmp_path).stdout


@pytest.mark.parametrize("load", [3.6, 0.4])
def test_that_others_have_the_cores_is_told_before_anything_is_measured(load: float, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_engine(monkeypatch)
    cpu = {"load_average": [load, 0.0, 0.0], "usable_cores": 2}
    monkeypatch.setattr(measuring, "facts", lambda devices: (known := facts(devices)) | {"cpu": known["cpu"] | cpu})
    before, _, _ = run(*FORWARD).stdout.partition("\ntime: ")
    assert ("others have the cores, a load of 3.6 on 2: fewer cases will be decided" in before) is (load == 3.6)


def test_where_everything_was_the_run_ends_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_engine(monkeypatch)
    (tmp_path / "levels.json").write_text(json.dumps({"disturbed": "csr"}))
    done = run(*FORWARD, "-k", "csr", "--benchmark-autosave", cwd=tmp_path)
    assert done.returncode in (0, pytest.ExitCode.NO_TESTS_COLLECTED), done.stdout
    assert "100% of all pairs were disturbed" in done.stdout


def test_of_epochs_that_were_disturbed_it_is_told_what_stands_in_their_place() -> None:
    layer, training = Outcome(), Outcome()
    layer.add(0, Race([1.0] * 4, [1.0] * 4, waited=[0.0, 0.5, 0.0, 0.0], dense_waited=[0.0] * 4), {})
    [told] = disturbed([layer, training])
    assert told == "25% of all pairs were disturbed by other processes, and do not count"
    training.add(0, Race([1.0] * 4, [1.0] * 4, waited=[0.5, 0.0, 0.0, 0.0], dense_waited=[0.0, 0.0, 0.5, 0.0]), {"epochs": 4})
    [told] = disturbed([layer, training])
    assert "38% of all pairs" in told
    assert told.endswith("; 2 are epochs, which take what the nearest undisturbed one of their training took")


@pytest.mark.parametrize("load", [[3.6, 2.0, 1.0], [0.4, 3.0, 3.0], None])
def test_that_others_had_the_cores_is_told_where_no_time_was_left(load: list[float] | None) -> None:
    results: Any = SimpleNamespace(outcomes={"one": None, "other": None}, out_of_time=True)
    [told] = without_a_turn(results, Effort(2, 0.1, 9.0), {"load_average": load, "usable_cores": 2, "logical_cores": 4})
    assert told.startswith("2 of 2 cases had no turn in 9 s (--budget)")
    assert ("a load of 3.6 on 2: try again" in told) == (load is not None and load[0] == 3.6)
    results.out_of_time = False
    assert not without_a_turn(results, Effort(2, 0.1, 9.0), {"load_average": load, "usable_cores": None, "logical_cores": None})


def visited(*handovers: float) -> Outcome:
    """Return what processes said of a case in a visit each, of cores that hand a line over in so many seconds."""
    outcome = Outcome()
    for number, seconds in enumerate(handovers):
        outcome.add(number, Race([1.0], [1.0], handovers=[seconds] if seconds else []), {})
    return outcome


def test_visits_with_cores_far_apart_are_told_of_by_their_share() -> None:
    near = [2.5e-8] * 6
    [told] = far_apart([visited(*near, 1.6e-7), visited(*near, 0.0, 1.5e-7, 3.1e-8)])
    assert "in 13% of all visits" in told  # 2 of 15: of one nothing is known, and one is no further than cores of one cache are
    assert "155 ns from one to the next, and 25 in the others" in told


def test_what_the_user_is_told_at_the_end_fits_a_terminal_and_is_one_line_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_engine(monkeypatch)
    (tmp_path / "levels.json").write_text(json.dumps({"disturbed": "csr"}))
    told = "1 case is left out, all of whose pairs were: try fewer --threads, or a quieter machine"
    assert told in run(*FORWARD, cwd=tmp_path).stdout
    monkeypatch.setenv("COLUMNS", "70")
    monkeypatch.setattr(TerminalReporter, "isatty", property(lambda _: lambda: True, lambda *_: None), raising=False)
    out = run(*FORWARD, cwd=tmp_path).stdout
    assert told in out.replace("\n", " ")
    assert told not in out


@pytest.mark.parametrize("handovers", [[], [0.0], [1.6e-7] * 8, [*[2.5e-8] * 199, 1.6e-7]])
def test_cores_as_far_apart_as_ever_are_not_told_of(handovers: list[float]) -> None:
    assert far_apart([visited(*handovers)]) == []
