"""Mask updates in a CUDA graph, on a card and in simulation: each replay is another update, in the same memory."""

import pytest
import torch
from torch import Tensor

from sparse_models.layers import tiled
from sparse_models.layers._feature_major.both_ways import CsrBothWays
from sparse_models.masks import count_kept, top_k_mask
from sparse_models.replays.capture import capturing
from tests.helpers.gpu.on_a_card import device
from tests.helpers.gpu.simulated_graph import simulated_graphs
from tests.sparse_models.kernels.gpu.test_cuda_layer import _kernels_of_a_gpu
from tests.sparse_models.kernels.gpu.test_cuda_moves import Arm, _cut, by_pytorch, drawn, grown_of, same
from tests.strategies import normal

__all__ = ["_cut", "_kernels_of_a_gpu", "device", "simulated_graphs"]  # fixtures
pytestmark = pytest.mark.usefixtures("poisoned")
FRACTION = 0.3


def captured(arm: Arm, rule: str, grads: list[Tensor], request: pytest.FixtureRequest) -> torch.cuda.CUDAGraph:
    """An update that was done once, and is captured."""
    if not grads[0].is_cuda:
        request.getfixturevalue("simulated_graphs")
        request.getfixturevalue("monkeypatch").setattr(tiled, "cut", lambda *_: None)  # on a card nothing is cut
    arm.update(rule, FRACTION, grads, None, in_place=True)
    graph, before = torch.cuda.CUDAGraph(), [one.clone() for one in arm.content()]
    with torch.cuda.stream(torch.cuda.Stream()), capturing(graph):
        arm.update(rule, FRACTION, grads, None, in_place=True)
    same(arm.content(), [one.cpu() for one in before])
    return graph


def test_each_replay_grows_by_the_gradients_that_there_are_then(device: str, request: pytest.FixtureRequest) -> None:
    arm, twin = drawn(device)
    grads = [one.to(device) for one in grown_of(twin.layers, 0)]
    places, graph = [one.data_ptr() for one in arm.content()], captured(arm, "rigl", grads, request)
    by_pytorch(twin, "rigl", FRACTION, grads, None)
    for seed in range(3, 6):
        for layer, grad, other in zip(arm.layers, grads, grown_of(twin.layers, seed), strict=True):
            grad.copy_(other)
            assert layer.values.grad is not None
            layer.values.grad.fill_(1)
        graph.replay()
        by_pytorch(twin, "rigl", FRACTION, grads, None)
        same(arm.content(), twin.content())
        assert not any(bool(layer.values.grad.any()) for layer in arm.layers if layer.values.grad is not None)
    assert places == [one.data_ptr() for one in arm.content()]


def test_each_replay_draws_other_numbers(device: str, request: pytest.FixtureRequest) -> None:
    arm, _ = drawn(device)
    graph = captured(arm, "set", [one.to(device) for one in grown_of(arm.layers, 0)], request)
    start, seen = [one.clone() for one in arm.content()], list[Tensor]()
    for _ in range(3):
        for one, before in zip(arm.content(), start, strict=True):
            one.copy_(before)
        weights, masks = [layer.to_dense() for layer in arm.layers], [layer.mask for layer in arm.layers]
        graph.replay()
        for layer, weight, mask in zip(arm.layers, weights, masks, strict=True):
            assert isinstance(layer, CsrBothWays)
            assert layer._fits()
            kept = int(mask.sum())
            survivors = top_k_mask(weight.abs(), count_kept(kept, FRACTION), among=mask)
            assert int(layer.mask.sum()) == kept
            assert bool((layer.mask | ~survivors).all())
            assert torch.equal(layer.to_dense(), weight * layer.mask)
        seen.append(arm.layers[0].mask)
    assert not any(torch.equal(one, other) for number, one in enumerate(seen) for other in seen[:number])


def test_few_samples_are_multiplied_by_the_mask_of_the_last_replay(device: str, request: pytest.FixtureRequest) -> None:
    arm, _ = drawn(device)
    layer, x = arm.layers[0], normal(1, 3, 70, dtype=torch.float32).to(device)
    graph = captured(arm, "set", [one.to(device) for one in grown_of(arm.layers, 0)], request)
    for _ in range(2):
        with torch.no_grad():
            layer.eval()(x)  # which makes a copy of the weights
        graph.replay()
        with torch.no_grad():
            layer.values.fill_(1)
            found = layer.train().eval()(x)
        torch.testing.assert_close(found, x @ layer.to_dense().t())
