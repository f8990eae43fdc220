import sys

import pytest
import torch

from bench.works.replays import captured, in_turn, listed
from tests.helpers.processes.commands import output


def test_copies_are_called_in_turn() -> None:
    calls: list[str] = []
    work = in_turn([lambda: calls.append("a"), lambda: calls.append("b"), lambda: calls.append("c")])
    for _ in range(5):
        work()
    assert calls == ["a", "b", "c", "a", "b"]
    assert listed(work) == [work]


@pytest.mark.card
def test_a_captured_work_does_the_same_as_often_as_it_says() -> None:
    with torch.cuda.stream(torch.cuda.Stream()):
        x, y = torch.ones(8, device="cuda"), torch.zeros(8, device="cuda")
        replay = captured([lambda: y.add_(x)])
        x.fill_(2.0)
        y.zero_()
        replay()
        torch.cuda.synchronize()
        assert y.tolist() == [2.0 * replay.calls] * 8


# After a capture that failed a process is not what it was, and should end: this one does.
REFUSED = """
import torch
from bench.works.replays import captured
from sparse_models.errors import InputError
with torch.cuda.stream(torch.cuda.Stream()):
    x = torch.ones(8, device="cuda")
    captured([lambda: x.mul_(2)])
    try:
        captured([lambda: x.sum().item()])
    except InputError as error:
        print(error)
    print((x * 2).sum().item() > 0)
"""


@pytest.mark.card
def test_what_a_graph_cannot_hold_is_refused() -> None:
    said = output([sys.executable, "-c", REFUSED])
    assert "expected a work that a CUDA graph can hold" in said
    assert said.endswith("True\n")  # launched by the host it still works


@pytest.mark.card
def test_graphs_come_and_go_in_one_memory() -> None:
    with torch.cuda.stream(torch.cuda.Stream()):
        x = torch.ones(2**20, device="cuda")
        for _ in range(5):
            captured([lambda: x + 1])()
        torch.cuda.synchronize()
