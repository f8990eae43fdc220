import itertools
import math

import pytest
import torch

from bench.works.roofline import TRIES, bounds, undisturbed
from sparse_models.kernels.contention import Usage
from sparse_models.kernels.cpu._arithmetic import BYTES
from sparse_models.kernels.cpu._compile import vector_bytes
from sparse_models.kernels.cpu._team import threads
from sparse_models.kernels.cpu.bounds.roofline import CALL_BYTES, bound
from sparse_models.layers import LAYERS
from sparse_models.masks import random_mask
from tests.helpers.kernel_checks import Watcher
from tests.strategies import generator


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("tile_bytes", [1, 1000, 2**16])
def test_a_bound_is_a_rate(tile_bytes: int, dtype: str) -> None:
    assert 0 < bound(tile_bytes, dtype, seconds=0.0) < math.inf


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_bound_counts_two_flops_for_each_number_that_a_thread_loads(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0, 0.25)
    monkeypatch.setattr("sparse_models.kernels.cpu.bounds.roofline.time.perf_counter", lambda: next(clock))
    size = 32 * vector_bytes()  # two rounds of loads
    numbers = CALL_BYTES // size * size // BYTES[dtype] * threads()
    assert bound(size, dtype) == 2 * numbers / 0.25


def test_each_thread_stays_in_a_tile_of_its_own(watcher: Watcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparse_models.kernels.cpu.bounds.roofline.CALL_BYTES", 2**12)
    monkeypatch.setattr("sparse_models.kernels.cpu.bounds.roofline.LEAST_CALLS", 1)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    bound(3000, "float32", seconds=0.0)
    torch.set_num_threads(before)
    assert watcher.written
    assert not watcher.outside
    assert not watcher.contested


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_layer_tells_what_its_products_read_again_and_again(dtype: torch.dtype) -> None:
    layer = LAYERS["tiled"](torch.ones(20, 30, dtype=dtype), random_mask((20, 30), 0.5, generator(0)))
    forward, input_gradient, weight_gradient = (layer.tile_bytes(product, 7) for product in range(3))
    assert forward == weight_gradient  # a row for each of 30 inputs
    assert forward is not None
    assert input_gradient is not None
    assert forward * 20 == input_gradient * 30
    assert layer.tile_bytes(0, 1) is None  # a batch of 1 has no tile


def test_bounds_are_of_operations_of_one_product_and_of_layers_that_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.works.once_per_run.KNOWN", {})
    monkeypatch.setattr("sparse_models.kernels.cpu.bounds.roofline.bound", lambda *_: 5e9)
    mask = random_mask((4, 4), 0.5, generator(0))
    tiled, csr = (LAYERS[name](torch.ones(4, 4), mask) for name in ("tiled", "csr"))
    monkeypatch.setattr("sparse_models.kernels.contention.DISTURBED", 1.0)  # whatever else runs meanwhile
    for op in ("forward", "training_forward", "input_gradient", "weight_gradient"):
        assert bounds(tiled, op, 16, 2)["bound_gflops"] == 5.0
        assert not bounds(csr, op, 16, 2)
    assert not any(bounds(tiled, op, 16, 2) for op in ("backward", "step", "optimizer"))


def told_of(monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> None:
    """Let the scheduler tell that a thread waited for so much of each second between two readings."""
    readings = [
        Usage(second, second * 0.5, {"1": int(waited * 1e9)})
        for number, waited in enumerate(waits)
        for second, waited in ((2.0 * number, 0.0), (2.0 * number + 1, waited))
    ]
    moments = iter(readings)
    monkeypatch.setattr(Usage, "now", lambda: next(moments))


def test_a_bound_is_the_highest_of_what_was_measured_undisturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    told_of(monkeypatch, [0.5, 0.0, 0.3, 0.01, 0.0, 0.0])
    figures = iter([9.0, 2.0, 8.0, 4.0, 3.0, 7.0])
    assert undisturbed(lambda: next(figures)) == 4.0
    assert list(figures) == [7.0]  # three are enough


def test_what_was_disturbed_every_time_has_no_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    told_of(monkeypatch, [0.5] * TRIES)
    monkeypatch.setattr("bench.works.once_per_run.KNOWN", {})
    monkeypatch.setattr("sparse_models.kernels.cpu.bounds.roofline.bound", lambda *_: 5e9)
    tiled = LAYERS["tiled"](torch.ones(4, 4), random_mask((4, 4), 0.5, generator(0)))
    assert bounds(tiled, "forward", 16, 2) == {}
