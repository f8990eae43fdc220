"""What drawing a problem and gating a layer take of memory, beside what the layer takes itself."""

import pytest
import torch

from bench.works import problems
from bench.works.peak_memory import peak_bytes
from sparse_models.layers import LAYERS, SparseLinear
from sparse_models.masks import FULL, random_score
from sparse_models.testing import Problem, gate
from sparse_models.testing.sample import SMALL
from tests.strategies import OWN_LAYERS, generator, of_each_kind

INPUTS, OUTPUTS, BATCH = 1100, 1000, 16
WEIGHT_BYTES = 4 * INPUTS * OUTPUTS
MOST = 3 * WEIGHT_BYTES


def drawn(layer: str, skew: float = 0.0) -> Problem:
    pattern = LAYERS[layer].pattern
    return problems.problem(pattern, problems.Key(INPUTS, OUTPUTS, BATCH, pattern.nearest(0.9), skew, "cpu", "float32"))


def bytes_of(layer: SparseLinear) -> int:
    return sum(tensor.nbytes for tensor in (*layer.parameters(), *layer.buffers()))


def at_work(layer: SparseLinear, problem: Problem, other: torch.Tensor) -> None:
    """All that a gate asks of a layer, without looking at it."""
    for mask in (problem.mask, other):
        layer.set_mask(mask)
        layer(problem.x.clone().requires_grad_()).backward(problem.output_grad)
        torch.optim.SGD(layer.parameters(), lr=1.0).step()
        layer.zero_grad()
        layer.pack(layer.to_dense())


@pytest.mark.parametrize("name", of_each_kind(OWN_LAYERS))
def test_a_gate_takes_three_times_the_weight_beside_the_layer(name: str) -> None:
    """Or, where a layer takes more itself while its mask moves, no more than the weight beside that."""
    assert INPUTS * OUTPUTS > SMALL
    layer, problem = LAYERS[name], drawn(name)
    other = layer.pattern.from_score(random_score(problem.mask.shape, generator(5)), layer.pattern.nearest(0.9))
    held = bytes_of(layer(problem.weight, problem.mask, problem.bias))
    own = peak_bytes(lambda: at_work(layer(problem.weight, problem.mask, problem.bias), problem, other), "cpu")
    taken = peak_bytes(lambda: gate(layer, problem), "cpu")
    assert own is not None
    assert taken is not None
    assert taken <= max(held + MOST, own + WEIGHT_BYTES)


@pytest.mark.parametrize("skew", [0.0, 0.5])
@pytest.mark.parametrize("name", of_each_kind(OWN_LAYERS))
def test_drawing_takes_three_times_the_weight_with_what_is_drawn(name: str, skew: float) -> None:
    def forget() -> None:
        for cached in (problems._weights, problems._activations, problems._masks):
            cached.cache_clear()

    def draw() -> None:
        drawn(name, 0.0 if LAYERS[name].pattern is FULL else skew)
        forget()

    forget()
    assert 0 < (peak_bytes(draw, "cpu") or 0) <= MOST


def test_weights_and_masks_are_drawn_once_for_all_batches() -> None:
    pattern = LAYERS["masked"].pattern
    first, second = (problems.problem(pattern, problems.Key(6, 5, batch, 0.5, 0.0, "cpu", "float32")) for batch in (3, 4))
    assert first.weight is second.weight
    assert first.mask is second.mask
    assert (len(first.x), len(second.x)) == (3, 4)
