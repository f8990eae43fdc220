import gc
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bench.works.peak_memory import peak_bytes
from tests.helpers.processes.commands import run

MIB = 2**20
devices = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.card)])


def block(device: str, size: int = MIB) -> torch.Tensor:
    return torch.empty(size, dtype=torch.uint8, device=device)


@devices
@pytest.mark.parametrize("count", [1, 2, 5])
def test_what_is_held_at_once_is_summed(device: str, count: int) -> None:
    assert peak_bytes(lambda: [block(device) for _ in range(count)], device) == count * MIB


@devices
def test_what_is_freed_in_turn_is_not_summed(device: str) -> None:
    def work() -> None:
        for _ in range(5):
            block(device)

    assert peak_bytes(work, device) == MIB


@devices
def test_nested_temporaries_count_at_their_deepest(device: str) -> None:
    def nest(depth: int) -> None:
        own = block(device)
        if depth:
            nest(depth - 1)
            nest(depth - 1)
        del own

    assert peak_bytes(lambda: nest(3), device) == 4 * MIB


@given(st.lists(st.one_of(st.integers(1, 64), st.integers(-8, -1)), max_size=30))
def test_any_order_of_allocations_and_releases_is_counted_exactly(steps: list[int]) -> None:
    """Positive steps allocate so many KiB, negative ones release the block that many from the end, if there is one."""
    held: list[int] = []
    peak = 0
    for step in steps:
        if step > 0:
            held.append(step * 1024)
        elif len(held) >= -step:
            held.pop(step)
        peak = max(peak, sum(held))

    def work() -> None:
        blocks: list[torch.Tensor] = []
        for step in steps:
            if step > 0:
                blocks.append(block("cpu", step * 1024))
            elif len(blocks) >= -step:
                blocks.pop(step)

    assert peak_bytes(work, "cpu") == peak


@devices
@pytest.mark.parametrize("work", [lambda: None, lambda: [0] * 10**6], ids=["nothing", "python"])
def test_work_that_allocates_no_tensor_has_no_peak(device: str, work: Callable[[], object]) -> None:
    assert peak_bytes(work, device) == 0


@devices
def test_what_was_held_before_is_not_counted(device: str) -> None:
    held = block(device, 8 * MIB)
    assert peak_bytes(held.clone, device) == 8 * MIB
    assert peak_bytes(held.zero_, device) == 0


@devices
def test_replacing_a_block_held_from_before_makes_room_for_the_new_one(device: str) -> None:
    held = {"block": block(device)}

    def work() -> None:
        held.clear()
        held["block"] = block(device)

    assert peak_bytes(work, device) == 0
    assert peak_bytes(work, device) == 0


@devices
def test_what_is_prepared_is_not_counted_and_makes_room_where_it_is_let_go_of(device: str) -> None:
    held: list[torch.Tensor] = []

    def prepare() -> None:
        held[:] = [block(device), block(device)]

    def work() -> None:
        held.clear()
        _ = [block(device) for _ in range(5)]

    assert peak_bytes(work, device, prepare) == 3 * MIB


@devices
def test_the_graph_and_the_gradients_of_an_mlp_are_seen(device: str) -> None:
    x = torch.rand(512, 128, device=device)

    def peaks(depth: int) -> tuple[int, int, int]:
        model = nn.Sequential(*[module for _ in range(depth) for module in (nn.Linear(128, 128), nn.Tanh())]).to(device)

        def step() -> None:
            model(x).sum().backward()
            model.zero_grad()

        found = [
            peak_bytes(torch.no_grad()(lambda: model(x)), device),
            peak_bytes(lambda: model(x), device),
            peak_bytes(step, device),
        ]
        without, graph, training = (peak or 0 for peak in found)
        return without, graph, training

    (without, graph, training), (without_deeper, graph_deeper, training_deeper) = peaks(4), peaks(8)
    # Without a graph, a layer's input and output at once; with one, each tanh's output stays; in the end come the gradients.
    assert without == without_deeper
    assert graph_deeper - graph == 4 * x.nbytes
    if device == "cpu":  # a GPU's BLAS takes a workspace from torch on every call
        assert (without, graph) == (2 * x.nbytes, 5 * x.nbytes)
    assert graph < training < training_deeper
    assert training_deeper > graph_deeper


@devices
def test_a_failing_work_leaves_everything_as_it_was(device: str, capfd: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        block(device)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        peak_bytes(work, device)
    assert gc.isenabled()
    subprocess.run([sys.executable, "-c", "import os; os.write(2, b'heard')"], check=True)
    assert capfd.readouterr().err == "heard"
    assert peak_bytes(lambda: block(device), device) == MIB


def test_a_device_that_does_not_tell_has_no_peak() -> None:
    assert peak_bytes(lambda: None, "meta") is None


def test_a_fresh_process_hears_nothing_and_counts_exactly() -> None:
    """Also where a block from before the profiler is released under it, of which PyTorch would warn on standard error."""
    program = """
import torch
from bench.works.peak_memory import peak_bytes
held = [torch.empty(2**20, dtype=torch.uint8)]
def work():
    held.clear()
    torch.empty(2**20, dtype=torch.uint8)
assert all(peak_bytes(work, "cpu") == 2**20 for _ in range(50))
"""
    done = run([sys.executable, "-W", "error", "-c", program])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
