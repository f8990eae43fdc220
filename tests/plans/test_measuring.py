"""What becomes of a plan where processes die, are late, or measure a kind no further."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.plans import candidates, in_place, measuring
from bench.plans.arms import DENSE, PLAIN, Kind, arm_of
from bench.plans.asked import BUDGET, Asked
from bench.plans.measuring import Run
from bench.plans.plan import plan_of
from bench.plans.rivals import BFLOAT16, RIVALS
from bench.runs.outcome import Race
from sparse_models.errors import InputError
from sparse_models.kernels import choice

SOURCE = """
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)), torch.randn(4, 8)
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A model in the working directory."""
    (tmp_path / "nets.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
    choice.forget()


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


def run_with(server: Any, *kinds: str) -> Run:
    asked = Asked("nets.py:net", "forward", [Kind(kind, 0.5) for kind in kinds or ("tiled",)], 1)
    return Run(asked, server, lambda _: None)


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
    assert ("raise --budget" in run.left_out.get(measuring.MIXED, "")) == (not has_mixed)


class Small(Dying):
    """One whose machine has no memory for a model that is there once more than for each kind."""

    def run(self, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
        _, _, (function, arguments) = asked["call"]
        if function == "measure" and any(None in plan for plan in arguments[2]):
            yield {"failure": "it died"}
        else:
            yield from super().run(asked)


def test_without_memory_for_plans_of_several_kinds_those_of_one_are_told() -> None:
    run = run_with(Small())
    run.prepare()
    run.choose()
    run.race()
    assert run.left_out[measuring.MIXED] == "it died"
    plan = plan_of(run.measured)
    assert [arm_of(one.choices) for one in plan.tried] == ["tiled 0.5"]
    assert plan.calls


class Hopeless(Dying):
    """One in which a kind loses at every layer by itself, and yet a plan with it is the fastest."""

    def run(self, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
        _, _, (function, arguments) = asked["call"]
        if function != "measure" or arguments[3]:
            yield from super().run(asked)
            return
        own = {PLAIN: [3e-3, []], DENSE: [3e-3, [1e-3, 1e-3]]}
        for plan in arguments[2]:
            arm = arm_of([None if one is None else Kind(*one) for one in plan])
            slow = [2e-3, 2e-3] if arm == "csr 0.5" else [1.9e-3, 5e-4]
            own[arm] = [1.5e-3, [9e-4, 4e-4]] if arm == "csr 0.5, tiled 0.5" else [sum(slow) + 1e-3, slow]
        yield {"passes": own, "left_out": {}}


def test_a_plan_with_a_kind_that_loses_by_itself_is_predicted() -> None:
    run = run_with(Hopeless(), "csr", "tiled")
    run.prepare()
    run.ready["kept"]["csr 0.5"] = [0.9, 0.9]
    run.choose()
    assert [str(kind) for kind in candidates.best_plan(run.measured)] == ["csr 0.5", "tiled 0.5"]
    assert not candidates.may_pay(Kind("csr", 0.5), run.measured)
    assert plan_of(run.measured).predicted is not None


def test_a_rival_whose_check_is_late_is_told_as_late(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Dying(late=20.0)
    monkeypatch.setattr(measuring, "time", server)
    run = run_with(server)
    run.prepare()
    assert run.left_out[BFLOAT16] == f"expected it ready within {BUDGET / 5:.0f} s, got no end by then; raise --budget"
    assert run.rivals == []


def test_with_no_kind_that_the_model_can_hold_nothing_is_asked_further(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_place, "_why_not", lambda *_: "too wide")
    run = run_with(Dying())
    told = r"expected a kind of layer that the model can hold, got none \(tiled 0.5: too wide\); name others with --layer"
    with pytest.raises(InputError, match=told):
        run.prepare()


class Closing(Dying):
    """One whose later processes die, or all that measure."""

    def __init__(self, dying: str) -> None:
        super().__init__()
        self.dying = dying

    def run(self, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
        _, _, (function, _) = asked["call"]
        yield from [{"failure": "it died"}] if function == self.dying else super().run(asked)

    def close(self) -> None:
        pass


def test_what_dies_at_last_takes_nothing_with_it_that_was_known(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked("nets.py:net", "forward", [Kind("tiled", 0.5)], 1)
    monkeypatch.setattr(measuring, "fork_server_of", lambda _: Closing("race_whole"))
    advised = measuring.advise(asked, lambda _: None)
    assert advised.left_out[measuring.LATER] == "it died"
    assert advised.plan.predicted is not None
    monkeypatch.setattr(measuring, "fork_server_of", lambda _: Closing("measure"))
    with pytest.raises(InputError, match="it died"):
        measuring.advise(asked, lambda _: None)
