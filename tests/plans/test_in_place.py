"""A rival that fails, is late or slow is left out with its reason, and what is timed beside it is not lost."""

import math
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from bench.engine.rounds import Took
from bench.models.selected import NONE
from bench.plans import in_place, timing
from bench.plans.arms import DENSE, PLAIN, Arm, Model
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
