"""A card that is not there, and its stopwatch, which says of each plan what it is told: what races plans runs on a CPU."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from sparse_models.errors import InputError
from sparse_models.kernels import asynchronous, choice
from sparse_models.kernels.contention import Usage
from sparse_models.kernels.cuda import _race


class Told:
    """A stopwatch that says of each plan what it is told; plans are told apart by what is called."""

    def __init__(self) -> None:
        self.seconds: dict[Any, float] = {}
        self.calls: list[Any] = []
        self.refused: list[Any] = []

    def __call__(self, call: Callable[[], Any], calls: int) -> float:
        assert calls >= 1
        call()
        return self.seconds.get(self.calls[-1], 1.0)

    def call(self, plan: Any) -> Tensor:
        self.calls.append(plan)
        if plan in self.refused:
            raise InputError("expected another plan")
        return torch.ones(1)

    def noted(self, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, place: int | str) -> None:
        """Have it see the plans that a kernel is called with, by their place among its arguments, or by their name."""
        kernel = getattr(module, name)

        def called(*arguments: Any, **named: Any) -> Any:
            plan = named.get(place) if isinstance(place, str) else (*arguments, None)[place]
            if plan is not None:
                self.calls.append(plan)
            return kernel(*arguments, **named)

        monkeypatch.setattr(module, name, called)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Told]:
    """A card that is not there, with a cache of its own, and its stopwatch."""
    stopwatch = Told()
    monkeypatch.setenv("SPARSE_MODELS_CACHE", str(tmp_path))
    monkeypatch.delenv("SPARSE_MODELS_VARIANT", raising=False)
    monkeypatch.setattr(asynchronous, "IN_QUEUES", {"cpu"})
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: SimpleNamespace(synchronize=lambda: None))
    monkeypatch.setattr(_race, "Stopwatch", lambda: stopwatch)
    monkeypatch.setattr(Usage, "was_disturbed", lambda *_: True)  # which is the host's affair
    choice.forget()
    yield stopwatch
    choice.forget()
