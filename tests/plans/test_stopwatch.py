import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from bench.plans.stopwatch import Stopwatch

now = 0.0


class Taking(torch.autograd.Function):
    """Does nothing, and takes so many seconds of a clock of its own, there and back."""

    @staticmethod
    def forward(ctx: object, x: Tensor, weight: Tensor, bias: Tensor, there: float, back: float) -> Tensor:
        global now  # noqa: PLW0603
        now += there
        ctx.back = back  # type: ignore[attr-defined]
        return x + weight + bias

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        global now  # noqa: PLW0603
        now += ctx.back  # type: ignore[attr-defined]
        return grad, grad.sum(), grad.sum(), None, None


class Slow(nn.Module):
    def __init__(self, there: float, back: float, *, is_frozen: bool = False) -> None:
        super().__init__()
        self.weight, self.bias = (nn.Parameter(torch.zeros(()), requires_grad=not is_frozen) for _ in range(2))
        self.there, self.back = there, back

    def forward(self, x: Tensor) -> Tensor:
        return Taking.apply(x, self.weight, self.bias, self.there, self.back)  # type: ignore[no-untyped-call, no-any-return]


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.perf_counter", lambda: now)


seconds = st.integers(0, 64).map(float)
layers = st.lists(st.builds(Slow, seconds, seconds, is_frozen=st.booleans()), min_size=1, max_size=5)


@given(layers, layers, st.integers(1, 3), st.booleans())
def test_each_layer_is_told_its_own_seconds_and_those_of_no_other(
    watched: list[Slow], others: list[Slow], calls: int, is_learning: bool
) -> None:
    mixed = [layer for number in range(5) for layer in (*watched[number : number + 1], *others[number : number + 1])]
    watch, model = Stopwatch(watched), nn.Sequential(*mixed)
    for _ in range(2):
        for _ in range(calls):
            with torch.set_grad_enabled(is_learning):
                y = model(torch.zeros(2, requires_grad=True))
            if is_learning:
                y.sum().backward()
        expected = [calls * (layer.there + layer.back * is_learning) for layer in watched]
        assert watch.lap() == expected
    assert watch.lap() == [0.0] * len(watched)


def test_what_follows_a_layer_whose_output_others_read_as_well_is_not_its_own() -> None:
    first, second, third = Slow(1, 10), Slow(2, 20), Slow(4, 40)
    watch = Stopwatch([first, second, third])
    x = first(torch.zeros(1, requires_grad=True))
    (second(x) + third(x) + x).sum().backward()
    assert watch.lap() == [11.0, 22.0, 44.0]
