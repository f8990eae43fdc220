import pytest
import torch

from bench.works.replays import captured, in_turn, listed
from sparse_models.errors import InputError

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")


def test_copies_are_called_in_turn() -> None:
    calls: list[str] = []
    work = in_turn([lambda: calls.append("a"), lambda: calls.append("b"), lambda: calls.append("c")])
    for _ in range(5):
        work()
    assert calls == ["a", "b", "c", "a", "b"]
    assert listed(work) == [work]


@cuda
def test_a_captured_work_does_the_same_as_often_as_it_says() -> None:
    with torch.cuda.stream(torch.cuda.Stream()):
        x, y = torch.ones(8, device="cuda"), torch.zeros(8, device="cuda")
        replay = captured([lambda: y.add_(x)])
        x.fill_(2.0)
        y.zero_()
        replay()
        torch.cuda.synchronize()
        assert y.tolist() == [2.0 * replay.calls] * 8


def _refused_and_then_captured(x: torch.Tensor) -> None:
    with torch.cuda.stream(torch.cuda.Stream()), pytest.raises(InputError, match="a work that a CUDA graph can hold"):
        captured([lambda: x.sum().item()])
    with torch.cuda.stream(torch.cuda.Stream()):
        captured([lambda: x.mul_(2)])()
        torch.cuda.synchronize()


@cuda
def test_what_a_graph_cannot_hold_is_refused_and_spoils_no_other() -> None:
    for _ in range(3):
        _refused_and_then_captured(torch.ones(8, device="cuda"))
