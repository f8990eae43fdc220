"""A training whose steps are replays of CUDA graphs is the one whose steps are not, to the bit; the graphs are simulated."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings

from sparse_models.data import Split
from sparse_models.layers.masked import Masked
from sparse_models.models import MLP, dense_mlp
from sparse_models.mutation import updates_due
from sparse_models.replays.capture import capturing
from sparse_models.replays.steps import BEFORE
from sparse_models.training import FusedStep, Settings, optimizer_for, train
from sparse_models.updates import UPDATES
from tests.helpers.gpu.simulated_graph import SimulatedGraph, simulated_graphs
from tests.strategies import drawn, generator, mlp_of, normal, seeds

__all__ = ["simulated_graphs"]  # a fixture

SIZES, COUNT = (6, 8, 4), 22  # of 22 samples, in batches of 8, the last batch has 6
RULES = ["static", "set", "rigl", "gmp", "lottery", "mest", "snfs"]  # moved in place, and not; with gradients of every weight


def samples(seed: int) -> Split:
    return Split(normal(seed, COUNT, SIZES[0]), torch.randint(SIZES[-1], (COUNT,), generator=generator(seed)))


def model_for(layer: str, seed: int) -> MLP:
    return dense_mlp(drawn(layer, SIZES, seed)) if layer == "dense" else mlp_of(layer, drawn(layer, SIZES, seed), 0.5, seed)


def weights(model: MLP) -> list[torch.Tensor]:
    return [*(layer.to_dense() for layer in model), *(layer.mask for layer in model)]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@settings(max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seeds)
def test_a_replayed_training_is_the_same(rule: str, optimizer: str, simulated_graphs: type[SimulatedGraph], seed: int) -> None:
    plain, told = Settings(5, 8, 0.01, optimizer, update_interval=4), list[str]()
    found = []
    for whole in (False, True):
        model = model_for("masked", seed)
        with pytest.MonkeyPatch.context() as patch:
            if not whole:
                patch.setattr("sparse_models.training.ReplayedSteps.step", lambda *_: None)
            losses = torch.cat(list(train(model, samples(seed), plain, seed, UPDATES[rule], told=told)))
        found.append([losses, *weights(model)])
    assert not told
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("rule", RULES)
def test_all_steps_are_replayed_but_the_first_and_those_whose_gradients_a_rule_looks_at(
    rule: str, simulated_graphs: type[SimulatedGraph]
) -> None:
    epochs, update = 6, UPDATES[rule]
    for _ in train(model_for("masked", 0), samples(0), Settings(epochs, 8, 0.01, update_interval=5), 0, update):
        pass
    due = sum(one is not None for one in updates_due(3 * epochs, 5, update))
    looked_at = {"none": 0, "every": due, "kept": due, "averaged": 3 * epochs}[update.gradient]
    if update.conserves:  # masks move in place, so that what is captured, once for each size of a batch, stays valid
        assert simulated_graphs.begun == 2
        assert simulated_graphs.replays == 3 * epochs - 2 * BEFORE - looked_at
    elif update.gradient != "averaged":
        assert 0 < simulated_graphs.replays < 3 * epochs - 2 * BEFORE - looked_at


def stepped(model: MLP, seed: int = 0) -> FusedStep:
    step = FusedStep(model, optimizer_for("adam", model.parameters(), 0.01), replayed=True)
    for _ in range(BEFORE + 1):
        step(*batch(seed))
    return step


def batch(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    inputs, labels = samples(seed)
    return inputs[:8], labels[:8]


def test_a_step_with_other_numbers_or_tensors_is_captured_anew(simulated_graphs: type[SimulatedGraph]) -> None:
    model = model_for("masked", 0)
    step = stepped(model)
    step(*batch(1))
    assert (simulated_graphs.begun, simulated_graphs.replays) == (1, 2)
    step.optimizer.param_groups[0]["lr"] = 0.0
    before = weights(model)
    for _ in range(BEFORE + 1):
        step(*batch(2))
    assert (simulated_graphs.begun, simulated_graphs.replays) == (2, 3)
    for one, other in zip(weights(model), before, strict=True):
        assert torch.equal(one, other)
    for layer in model:
        layer.set_mask(torch.ones_like(layer.mask))
    for _ in range(BEFORE + 2):
        step(*batch(3))
    assert (simulated_graphs.begun, simulated_graphs.replays) == (3, 5)


def test_what_is_trained_no_more_stays_as_it_is(simulated_graphs: type[SimulatedGraph]) -> None:
    model = model_for("masked", 0)
    step = stepped(model)
    first, second = model
    first.values.requires_grad_(False)
    before = [layer.values.clone() for layer in (first, second)]
    for _ in range(BEFORE + 1):
        step(*batch(1))
    assert simulated_graphs.begun == 2
    assert torch.equal(first.values, before[0])
    assert not torch.equal(second.values, before[1])


def test_a_hook_that_waits_for_a_gradient_is_called(simulated_graphs: type[SimulatedGraph]) -> None:
    model, seen = model_for("masked", 0), list[torch.Tensor]()
    step = stepped(model)
    handle = next(model.parameters()).register_hook(seen.append)
    step(*batch(1))
    assert (len(seen), simulated_graphs.replays) == (1, 1)
    handle.remove()
    step(*batch(1))
    assert (len(seen), simulated_graphs.replays) == (1, 2)


def test_ctrl_c_ends_a_capture(simulated_graphs: type[SimulatedGraph], monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object) -> torch.Tensor:
        raise KeyboardInterrupt

    model, (inputs, _) = model_for("masked", 0), batch(0)
    monkeypatch.setattr(Masked, "product", stopped)
    with pytest.raises(KeyboardInterrupt), capturing(torch.cuda.CUDAGraph()):
        model(inputs)
    assert not simulated_graphs.captured


def test_a_step_that_an_optimizer_begins_with_is_never_captured(simulated_graphs: type[SimulatedGraph]) -> None:
    model = model_for("masked", 0)
    step = FusedStep(model, optimizer_for("adam", model.parameters(), 0.01), replayed=True)
    for _ in range(BEFORE):
        step(*batch(0))
    step.optimizer.state.clear()
    step(*batch(1))
    assert (simulated_graphs.begun, simulated_graphs.replays) == (0, 0)
    step(*batch(1))
    assert (simulated_graphs.begun, simulated_graphs.replays) == (1, 1)


@pytest.mark.usefixtures("simulated_graphs")
def test_a_replay_is_seen_by_copies_of_the_weights_and_its_loss_is_kept() -> None:
    model = model_for("masked", 0)
    step = stepped(model)
    versions = [parameter._version for parameter in model.parameters()]
    first = step(*batch(1))
    held = first.clone()
    step(*batch(2))
    assert torch.equal(first, held)
    assert all(parameter._version > before for parameter, before in zip(model.parameters(), versions, strict=True))


@pytest.mark.parametrize("words", ["the host waits for the device", "out of memory"])
def test_where_no_graph_can_hold_a_step_it_is_launched_and_the_reason_told(
    simulated_graphs: type[SimulatedGraph], monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    plain, found = Settings(4, 8, 0.01), list[list[torch.Tensor]]()

    def asking(layer: Masked, x: torch.Tensor) -> torch.Tensor:
        if "memory" in words and simulated_graphs.captured:
            raise torch.OutOfMemoryError(words)
        return product(layer, x) * (1.0 if "memory" in words else float(x.new_ones(())))  # the host waits for a number

    product = Masked.product
    monkeypatch.setattr(Masked, "product", asking)
    told = list[str]()
    for reasons in (told, None):
        model = model_for("masked", 0)
        losses = torch.cat(list(train(model, samples(0), plain, 0, told=reasons)))
        found.append([losses, *weights(model)])
    assert (simulated_graphs.begun, simulated_graphs.replays) == (2, 0)
    [reason] = told
    assert words in reason
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
