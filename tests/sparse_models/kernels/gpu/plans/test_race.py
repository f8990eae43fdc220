"""Which plan of a GPU's kernel is taken: by a stopwatch that is told what to say, and on a card by its own."""

import json
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from sparse_models.errors import InputError
from sparse_models.kernels import asynchronous, choice, kept_choices
from sparse_models.kernels.cuda import _race
from sparse_models.kernels.race import CLEARLY
from tests.helpers.gpu.told_stopwatch import Told, told
from tests.strategies import normal

__all__ = ["told"]  # a fixture


class Numbers(NamedTuple):
    """A plan of some kernel."""

    rows: int
    by_tma: bool = False


FIRST, OTHER, THIRD = Numbers(1), Numbers(2, by_tma=True), Numbers(3)
X = torch.zeros(1)


def chosen(told: Told, batch: int = 64, nnz: int = 512) -> Numbers:
    plan: Numbers = _race.chosen("kernel", (32, 64), batch, nnz, X, lambda: [FIRST, OTHER, THIRD], told.call)
    return plan


def test_the_fastest_plan_is_taken_raced_once_for_a_class_and_kept(told: Told) -> None:
    told.seconds = {FIRST: 1.0, OTHER: 0.8, THIRD: 0.9}
    assert chosen(told) == OTHER
    calls = len(told.calls)
    assert chosen(told) == chosen(told, nnz=500) == chosen(told, batch=70) == OTHER
    assert len(told.calls) == calls
    choice.forget()  # as another process begins
    again = chosen(told)
    assert (again, type(again), type(again.by_tma)) == (OTHER, Numbers, bool)
    assert len(told.calls) == calls
    assert list(choice.in_use()) == ["kernel 32x64b64, 1/4 kept, float32, no card"]
    [kept] = choice.in_use().values()
    assert str(kept) == "rows=2,by_tma=1"
    assert kept.tried == pytest.approx({FIRST: 1.0, OTHER: 0.8, THIRD: 0.9})
    chosen(told, batch=1024)
    assert len(told.calls) > calls


def test_the_rules_plan_stays_unless_another_is_faster_by_more_than_noise(told: Told) -> None:
    told.seconds = {OTHER: 1.01 / CLEARLY, THIRD: 1.2}
    assert chosen(told) == FIRST
    told.seconds = {OTHER: 0.99 / CLEARLY}
    assert chosen(told, batch=1024) == OTHER


def test_a_plan_that_is_refused_is_left_out_and_the_rules_own_is_told(told: Told) -> None:
    told.seconds, told.refused = {OTHER: 0.5, THIRD: 0.7}, [OTHER]
    assert chosen(told) == THIRD
    told.refused = [FIRST]
    with pytest.raises(InputError, match="another plan"):
        chosen(told, batch=1024)


def test_where_results_that_are_compared_do_not_fit_the_rules_plan_is_taken(told: Told) -> None:
    def call(plan: Numbers) -> list[torch.Tensor]:
        if held:
            raise torch.OutOfMemoryError
        result = torch.ones(1)
        if len(told.calls) > 3:  # each plan has been launched, and the first once more
            held.append(result)
        told.calls.append(plan)
        return [result]

    held: list[torch.Tensor] = []
    assert _race.chosen("kernel", (32, 64), 64, 512, X, lambda: [FIRST, OTHER, THIRD], call) == FIRST
    assert len(held) == 1
    assert not choice.in_use()


def test_a_plan_that_memory_has_no_room_for_says_nothing_of_the_others(told: Told) -> None:
    def call(plan: Numbers) -> torch.Tensor:
        if plan == OTHER:
            raise torch.OutOfMemoryError
        return told.call(plan)

    told.seconds = {THIRD: 0.5}
    assert _race.chosen("kernel", (32, 64), 64, 512, X, lambda: [FIRST, OTHER, THIRD], call) == FIRST
    assert not choice.in_use()


def test_few_plans_are_compiled(told: Told) -> None:
    many = [Numbers(number) for number in range(100)]
    told.seconds = {many[-1]: 0.1}
    assert _race.chosen("kernel", (32, 64), 64, 512, X, lambda: many, told.call) == many[0]
    assert len({*told.calls}) == _race.MOST


def test_while_a_graph_is_captured_nothing_is_raced(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    told.seconds = {OTHER: 0.5}
    with monkeypatch.context() as captured:
        captured.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        assert chosen(told) == FIRST
        assert not told.calls
    assert chosen(told) == OTHER
    calls = len(told.calls)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert chosen(told) == chosen(told, nnz=500) == OTHER
    assert len(told.calls) == calls


def test_what_is_held_alone_holds(told: Told) -> None:
    told.seconds = {OTHER: 0.5}
    chosen(told)
    held = json.loads(json.dumps(choice.plain(choice.known())))
    told.calls.clear()
    choice.hold(held)
    assert [chosen(told), chosen(told, batch=1024)] == [OTHER, FIRST]
    assert not told.calls


@pytest.mark.parametrize("asked", ["default", "vectors=4"])
def test_nothing_is_raced_where_the_environment_says_so(told: Told, monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    monkeypatch.setenv("SPARSE_MODELS_VARIANT", asked)
    assert chosen(told) == FIRST
    assert not told.calls


def test_on_a_cpu_nothing_is_raced(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asynchronous, "IN_QUEUES", {"cuda"})
    assert chosen(told) == FIRST
    assert not told.calls


def test_with_another_card_or_other_software_it_is_raced_anew(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    told.seconds = {OTHER: 0.5}
    assert chosen(told) == OTHER
    monkeypatch.setattr(_race, "card_name", lambda _: "another card")
    told.seconds = {THIRD: 0.5}
    assert chosen(told) == THIRD


@pytest.mark.parametrize("change", ["driver", "torch", "triton", "source"])
def test_what_decides_how_fast_plans_are_is_told(change: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cuda").mkdir()
    (tmp_path / "cuda" / "product.cu").write_text("one")
    monkeypatch.setattr(_race, "KERNELS", tmp_path)
    monkeypatch.setattr(_race, "DRIVER", tmp_path / "driver")
    before = _race.software.__wrapped__()
    if change == "driver":
        (tmp_path / "driver").write_text("580.1")
    elif change == "torch":
        monkeypatch.setattr(torch, "__version__", "3.0")
    elif change == "triton":
        monkeypatch.setattr(_race, "version", lambda _: "4.0")
    else:
        (tmp_path / "cuda" / "product.cu").write_text("other")
    assert _race.software.__wrapped__() != before


def test_damaged_plans_are_raced_anew(told: Told) -> None:
    told.seconds = {OTHER: 0.5}
    chosen(told)
    file = kept_choices.path()
    whole = json.loads(file.read_bytes())
    [(name, kept)] = whole["choices"].items()
    for wrong in ({"variant": [2]}, {"names": ["rows"]}, {"variant": [2, 1, 0]}, {"variant": ["x", 1]}, {"variant": [9, 1]}):
        file.write_text(json.dumps({**whole, "choices": {name: {**kept, **wrong}}}))
        choice.forget()
        told.calls.clear()
        assert chosen(told) == OTHER
        assert told.calls, wrong


class Event:
    """An event of a card that has slept so many cycles, or not yet: queuing a launch takes the host a million of them."""

    slept, launched = 0, 0

    def __init__(self, *, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        pass

    def query(self) -> bool:
        return Event.slept < Event.launched * 10**6

    def synchronize(self) -> None:
        Event.launched = 0

    def elapsed_time(self, _: "Event") -> float:
        return 12.0


def test_the_card_waits_until_all_is_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[int] = []

    def sleep(cycles: int) -> None:
        slept.append(cycles)
        Event.slept = cycles

    def launch() -> None:
        Event.launched += 1

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "_sleep", sleep)
    stopwatch = _race.Stopwatch()
    assert stopwatch(launch, 3) == pytest.approx(12e-3 / 3 / _race.EACH)
    needed = len(slept)
    assert slept[-2] < 3 * _race.EACH * 10**6 <= slept[-1]
    stopwatch(launch, 3)
    assert slept[needed:] == [slept[needed - 1]]
    stopwatch(launch, 1000)
    assert slept[-1] == _race.MOST_CYCLES


@pytest.mark.card
def test_on_a_card_plans_are_raced_by_its_own_clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPARSE_MODELS_CACHE", str(tmp_path))
    monkeypatch.delenv("SPARSE_MODELS_VARIANT")
    choice.forget()
    x, weight = normal(0, 512, 1024).cuda(), normal(1, 1024, 1024).cuda()
    seconds = _race.Stopwatch()(lambda: x @ weight, 4)
    assert seconds > 0.0
    ways = {FIRST: lambda: x @ weight, OTHER: lambda: (x @ weight) @ weight @ weight.inverse(), THIRD: lambda: x @ weight + 1}
    _race.chosen("kernel", (1024, 1024), 512, 1, x, lambda: [FIRST, OTHER, THIRD], lambda plan: ways[plan]())
    [(name, kept)] = choice.in_use().items()
    assert torch.cuda.get_device_name() in name
    assert kept.variant == FIRST
    assert THIRD not in kept.tried  # it gives something else
    choice.forget()
