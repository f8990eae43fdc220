"""Copies of weights while a CUDA graph is captured: what is captured is done by replays, and is no copy until then."""

import pytest
import torch

from sparse_models.kernels.cuda import frozen
from sparse_models.layers import two_four
from sparse_models.layers._feature_major import both_ways
from sparse_models.layers.tiled import Tiled
from sparse_models.layers.two_four import TwoFour
from tests.helpers.gpu.on_a_card import device
from tests.helpers.gpu.simulated_cusparselt import Simulated, cusparselt
from tests.helpers.gpu.simulated_graph import Recording
from tests.sparse_models.kernels.gpu.test_cuda_layer import _kernels_of_a_gpu, close, drawn
from tests.strategies import mask_for, normal

__all__ = ["_kernels_of_a_gpu", "cusparselt", "device"]  # fixtures


@pytest.mark.parametrize("has_copy", [False, True])
def test_a_capture_leaves_no_weights_that_its_replays_are_to_write(
    device: str, has_copy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device == "cuda":
        pytest.skip("captured in simulation")
    problem = drawn("cpu", 13, 203, 3, torch.float32)
    layer, recording = Tiled(problem.weight, problem.mask).eval(), Recording()
    with torch.no_grad():
        if has_copy:
            layer(problem.x)
            layer.values.mul_(-3)
        with monkeypatch.context() as patch, recording:  # which refuses to ask the device
            patch.setattr(frozen, "is_captured", lambda _: True)
            layer(problem.x)
        recording.undo()
        assert close(layer(problem.x), problem.x.double() @ layer.to_dense().double().t())


@pytest.mark.parametrize("has_copy", [False, True])
def test_so_it_is_with_compressed_weights(cusparselt: Simulated, has_copy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_four, "on_a_gpu", lambda _: True)
    weight, x = (normal(seed, *shape, dtype=torch.bfloat16) for seed, shape in enumerate([(16, 32), (8, 32)]))
    layer = TwoFour(weight, mask_for("two_four", (16, 32), 0.5)).eval()
    with torch.no_grad():
        if has_copy:
            layer(x)
            layer.values.mul_(-3)
        with monkeypatch.context() as patch:
            patch.setattr(two_four, "is_captured", lambda _: True)
            patch.setattr(torch, "_cslt_compress", lambda dense: cusparselt.compress(dense).fill_(float("nan")))  # not yet done
            layer(x)
        assert close(layer(x), x.double() @ layer.to_dense().double().t())


def test_a_step_that_sets_the_mode_is_captured_though_the_index_was_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Tiled(normal(0, 16, 32), mask_for("tiled", (16, 32), 0.5)).eval()
    layer.get_buffer("transposition").add_(0)
    with monkeypatch.context() as patch, Recording():  # which refuses to ask the device
        patch.setattr(both_ways, "is_captured", lambda _: True)
        layer.train()
    assert layer.training
