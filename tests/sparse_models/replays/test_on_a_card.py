"""Trainings whose steps a card replays are those whose kernels it is given one by one; a capture that fails spoils nothing."""

import sys

import pytest
import torch

from sparse_models.data import Split
from sparse_models.layers import LAYERS
from sparse_models.models import MLP
from sparse_models.replays.steps import ReplayedSteps
from sparse_models.training import Settings, train
from sparse_models.updates import UPDATES
from tests.helpers.processes.commands import output
from tests.strategies import MOVING_LAYERS, drawn, generator, mlp_of, normal, places, widest

ON_CARDS = [one for one in places(MOVING_LAYERS) if one.values[1] == "cuda"]
RULES = ["static", "set", "rigl"]


def model_for(layer: str) -> MLP:
    unit = max(LAYERS[layer].pattern.unit)
    return mlp_of(layer, drawn(layer, (4 * unit + 12, 8 * unit, 12), 0, "cuda"), 0.5, 0)


def samples(model: MLP) -> Split:
    values, features = next(model.parameters()), next(iter(model)).in_features
    inputs = normal(1, 150, features, dtype=torch.float32).to("cuda", values.dtype)
    return Split(inputs, torch.randint(12, (150,), generator=generator(2)).cuda())


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("layer", "device"), ON_CARDS)
def test_a_replayed_training_gives_the_same_losses(layer: str, device: str, rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert device == "cuda"
    if not UPDATES[rule].fits(LAYERS[layer].pattern):
        pytest.skip(f"{rule} is no rule for {layer}")
    found, taken, whole = list[torch.Tensor](), list[bool](), ReplayedSteps.step
    # The squares that Adam holds of gradients are 0 in 16 bit.
    optimizer = "adam" if widest(layer, "cuda").itemsize > 2 else "sgd"
    plain = Settings(4, 64, 1e-3, optimizer, update_interval=5)

    def counted(steps: ReplayedSteps, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor | None:
        loss = whole(steps, inputs, labels)
        taken.append(bool(steps.captured))
        return loss

    for step in (lambda *_: None, counted):
        monkeypatch.setattr(ReplayedSteps, "step", step)
        model, told = model_for(layer), list[str]()
        found.append(torch.cat(list(train(model, samples(model), plain, 0, UPDATES[rule], told=told))))
        torch.rand(2, device="cuda")  # generators are as they were, whatever became of a capture
    assert told or any(taken)
    torch.testing.assert_close(*found, rtol=2e-2, atol=2e-2)


FAILS = """
import torch
from sparse_models.errors import InputError
from sparse_models.replays.capture import capturing
x = torch.ones(8, device="cuda")
for _ in range(2):
    with torch.cuda.stream(torch.cuda.Stream()):
        try:
            with capturing(torch.cuda.CUDAGraph()):
                print(x.sum().item())
        except InputError as error:
            print(error)
print(torch.rand(2, device="cuda").sum().item() > 0)
graph = torch.cuda.CUDAGraph()
with torch.cuda.stream(torch.cuda.Stream()), capturing(graph):
    y = x * 2 + torch.rand(8, device="cuda")
graph.replay()
print(y.min().item() >= 2)
"""


@pytest.mark.card
def test_cuda_goes_on_after_a_capture_that_failed() -> None:
    said = output([sys.executable, "-c", FAILS])
    assert said.count("expected a work that a CUDA graph can hold") == 2
    assert said.endswith("True\nTrue\n")
