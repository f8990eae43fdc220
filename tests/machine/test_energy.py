"""What a card's counter of energy is asked, and what is made of it; the card and its counter are simulated."""

import time
from collections.abc import Callable

import pytest
import torch

from bench.machine import energy


class Card:
    """A card that takes 200 W, works a millisecond a call, and moves its counter every 50 ms."""

    def __init__(self) -> None:
        self.now = 0.0

    def work(self) -> None:
        self.now += 1e-3

    def read(self) -> int:
        return int(self.now / 0.05) * 10_000  # mJ


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    one = Card()
    monkeypatch.setattr(time, "perf_counter", lambda: one.now)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(energy, "counter", lambda _: one.read)
    return one


def test_joules_are_those_between_two_movements_of_the_counter(card: Card) -> None:
    assert energy.joules(card.work, "cuda") == pytest.approx(0.2, rel=0.1)


def test_a_counter_that_does_not_move_tells_nothing(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    still: Callable[[], int] = lambda: 7  # noqa: E731
    monkeypatch.setattr(energy, "counter", lambda _: still)
    assert energy.joules(card.work, "cuda") is None


def test_a_cpu_and_a_card_without_nvml_tell_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert energy.joules(lambda: None, "cpu") is None
    monkeypatch.setattr("importlib.import_module", lambda name: 1 / 0)
    assert energy.counter.__wrapped__("cuda") is None
