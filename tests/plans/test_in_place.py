"""A rival that fails, is late or slow is left out with its reason, and what is timed beside it is not lost."""

import math
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from bench.engine.rounds import Took
from bench.models.selected import NONE
from bench.plans import in_place, measuring, timing
from bench.plans.arms import DENSE, PLAIN, Arm, Kind, Model
from bench.plans.measuring import Asked, Run
from bench.plans.plan import plan_of
from bench.plans.rivals import BFLOAT16, RIVALS
from bench.runs.outcome import Race
from sparse_models.errors import GateError, InputError
from sparse_models.kernels import choice
from sparse_models.kernels.contention import Usage

SOURCE = """
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)), torch.randn(4, 8)
"""
SOURCE_NAME = "nets.py:net", NONE
RACED = timing.raced


def fails(*_: object) -> Arm:
    raise ZeroDivisionError("there")


def is_late(model: Model, op: str) -> Arm:
    time.sleep(5.0)
    return is_slow(model, op)


def is_slow(model: Model, op: str) -> Arm:
    return Arm(model.called, op, model.names)  # but for SLOWEST, which is none in this test


@pytest.fixture(autouse=True)
def here(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A model in the working directory, and rounds that are not for the clock."""
    (tmp_path / "nets.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(timing, "DISTURBED", math.inf)
    monkeypatch.setattr(timing, "raced", lambda *_: Race([1e-3] * 4, [1e-3] * 4))
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
    choice.forget()


@pytest.mark.parametrize(
    ("build", "patience", "why"),
    [
        (fails, 60.0, "ZeroDivisionError: there"),
        (is_late, 0.2, "expected it ready within 0.2 s in each process, got no end by then; raise --budget"),
        (is_slow, 60.0, "0 times dense's, got more"),
    ],
)
def test_a_rival_that_cannot_be_timed_is_left_out_and_the_others_are_not(
    build: Any, patience: float, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_place, "SLOWEST", 0.0)
    monkeypatch.setitem(RIVALS, BFLOAT16, RIVALS[BFLOAT16]._replace(in_place=build, whole=build))
    *_, measured = in_place.serve("measure", [SOURCE_NAME, "forward", [], [BFLOAT16], 1, {}, patience, 0.001, True])
    assert measured["passes"].keys() == {PLAIN, DENSE}
    *_, raced = in_place.serve("race_whole", [SOURCE_NAME, "forward", [("tiled", 0.5, ["0"])], [BFLOAT16], 1, {}, patience])
    assert raced["races"].keys() == {in_place.PLANNED}
    assert why in measured["left_out"][BFLOAT16]
    assert why in raced["left_out"][BFLOAT16]


@pytest.mark.parametrize(("disturbed", "told"), [(BFLOAT16, {PLAIN, DENSE}), (DENSE, set()), ("", {PLAIN, DENSE, BFLOAT16})])
def test_of_a_rival_that_was_disturbed_nothing_is_said_and_without_dense_nothing_at_all(
    disturbed: str, told: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model(*SOURCE_NAME)
    built = {name: Arm(model.called, "forward", model.names) for name in (PLAIN, DENSE, BFLOAT16)}
    monkeypatch.setattr(timing, "DISTURBED", 0.5)
    monkeypatch.setattr(Usage, "waited_for_itself", lambda *_: False)
    monkeypatch.setattr(timing, "time_round", lambda arm, *_: Took(1e-3, waited=float(arm is built.get(disturbed))))
    assert timing.rounds(built, 0.001).keys() == told


class Dying:
    """A fork server in whose processes rivals die, and nothing else does.

    `late` seconds go by in their check, and `slow` ones in each process that measures.
    """

    def __init__(self, late: float = 0.0, slow: float = 0.0) -> None:
        self.late, self.slow, self.now = late, slow, 0.0

    def monotonic(self) -> float:
        return self.now

    def run(self, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
        _, _, (function, arguments) = asked["call"]
        if function == "check_rival":
            self.now += self.late
            yield {"failure": "it died"} if self.late else {"why": None}
        elif function == "prepare":
            yield from in_place.serve(function, arguments)
        elif arguments[3]:
            yield {"failure": "it died"}
        else:
            self.now += self.slow
            own = {PLAIN: [3e-3, []], DENSE: [3e-3, [1e-3, 1e-3]], "tiled 0.5": [2e-3, [5e-4, 1e-3]]}
            pairs = {in_place.PLANNED: Race([1e-3] * 4, [2e-3] * 4)}
            yield {"passes": own, "races": pairs, "stored": 5, "left_out": {}}


def run_with(server: Any, budget: float = 55.0) -> Run:
    return Run(Asked("nets.py:net", "forward", [Kind("tiled", 0.5)], 1, budget), server, lambda _: None)


def test_a_process_that_dies_with_rivals_costs_the_rivals_and_not_the_plan() -> None:
    run = run_with(Dying())
    run.prepare()
    assert run.rivals == list(RIVALS)
    run.choose()
    run.race()
    assert run.rivals == []
    assert run.left_out == dict.fromkeys(RIVALS, "it died")
    assert run.disturbed == 0
    assert len(run.races) == measuring.WHOLE_PROCESSES
    assert plan_of(run.measured).calls


@pytest.mark.parametrize(("seconds", "processes", "has_mixed"), [(0.0, 5, True), (9.0, 3, True), (20.0, 1, False)])
def test_mixed_plans_are_measured_where_there_is_time_for_three_processes(
    seconds: float, processes: int, has_mixed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Dying(slow=seconds)
    monkeypatch.setattr(measuring, "time", server)
    run = run_with(server)
    run.prepare()
    run.choose()
    assert len(run.choosing) == processes
    assert ([Kind("tiled", 0.5), None] in run.plans) == has_mixed


def test_a_rival_whose_check_is_late_is_told_as_late(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Dying(late=20.0)
    monkeypatch.setattr(measuring, "time", server)
    run = run_with(server)
    run.prepare()
    assert run.left_out[BFLOAT16] == "expected it ready within 11 s, got no end by then; raise --budget"
    assert run.rivals == []


def test_with_no_kind_that_the_model_can_hold_nothing_is_asked_further(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_place, "_why_not", lambda *_: "too wide")
    run = run_with(Dying())
    told = r"expected a kind of layer that the model can hold, got none \(tiled 0.5: too wide\); name others with --layer"
    with pytest.raises(InputError, match=told):
        run.prepare()


@pytest.mark.parametrize(
    ("raised", "told"), [(GateError, "it is off"), (InputError, "it is off"), (ValueError, "ValueError: it is off")]
)
def test_why_a_rival_is_none_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch, raised: type[Exception], told: str) -> None:
    def check(*_: object) -> None:
        raise raised("it is off")

    monkeypatch.setitem(RIVALS, BFLOAT16, RIVALS[BFLOAT16]._replace(check=check))
    monkeypatch.setattr(in_place, "Model", lambda *_: None)
    assert list(in_place.check_rival(SOURCE_NAME, "forward", BFLOAT16, torch.get_num_threads(), 60.0)) == [{"why": told}]


@pytest.mark.parametrize(("seconds", "calls"), [(1e-6, 20), (1e-4, 20), (2e-4, 15), (9e-3, 3), (2e-2, 0)])
def test_short_calls_settle_over_many_and_long_ones_not_at_all(seconds: float, calls: int) -> None:
    assert timing.settling(seconds) == calls


@pytest.mark.parametrize(("seconds", "calls"), [(1.6e-4, 19), (2e-2, 0)])
def test_a_race_settles_as_the_rounds_of_layers_do(seconds: float, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    monkeypatch.setattr(timing, "seconds_of_a_call", lambda _: seconds)
    monkeypatch.setattr(timing, "race", lambda *asked, **_: found.append(asked[3]))
    model = Model(*SOURCE_NAME)
    RACED(*(Arm(model.called, "forward") for _ in range(2)))
    assert [(plan.settle, plan.dense_settle) for plan in found] == [(calls, calls)]
