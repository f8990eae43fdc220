"""A hundred updates: every rule trains as a slow definition of it does, in every storage, with the state of every optimizer."""

import pytest
import torch
from torch import Tensor

from sparse_models.data import Split
from sparse_models.masks import UNSTRUCTURED
from sparse_models.models import MLP, draw, sparse_mlp
from sparse_models.mutation import updates_due
from sparse_models.training import OPTIMIZERS, Settings, optimizer_for, steps_of, train
from sparse_models.updates import UPDATES
from tests.helpers.plain_training import RULES, Network, Reached, plainly_trained
from tests.strategies import generator, normal

SIZES, SAMPLES, SPARSITY, SEED = (7, 9, 8, 4), 40, 0.7, 3
SETTINGS = Settings(epochs=27, batch=8, learning_rate=0.01, update_interval=1)
STEPS = steps_of(SAMPLES, SETTINGS)
FREE = sorted(name for name, rule in UPDATES.items() if rule.fits(UNSTRUCTURED))
LAYERS = ("masked", "csr", "tiled")


def data() -> tuple[Tensor, Tensor]:
    return normal(1, SAMPLES, SIZES[0]), torch.randint(SIZES[-1], (SAMPLES,), generator=generator(1))


def started(layer: str, rule: str) -> MLP:
    return sparse_mlp(draw(SIZES, generator(0)), layer, SPARSITY, generator(2), update=UPDATES[rule], samples=data())


def reached(layer: str, rule: str, optimizer: str) -> Reached:
    """What the package's own training comes to."""
    model = started(layer, rule)
    held: list[torch.optim.Optimizer] = []

    def kept(*arguments: object) -> torch.optim.Optimizer:
        held.append(optimizer_for(*arguments))  # type: ignore[arg-type]
        return held[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sparse_models.training.optimizer_for", kept)
        losses = list(train(model, Split(*data()), SETTINGS._replace(optimizer=optimizer), SEED, UPDATES[rule]))
    state = [
        {
            name: part.unpack(value)
            for name, value in held[0].state[part.values].items()
            if isinstance(value, Tensor) and value.shape == part.values.shape
        }
        for part in model
    ]
    biases = [part.bias.detach() for part in model if part.bias is not None]
    return Reached(torch.cat(losses), [part.to_dense() for part in model], [part.mask for part in model], biases, state)


def test_the_definition_knows_every_rule() -> None:
    assert set(RULES) == set(FREE)
    assert STEPS > 120


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("rule", FREE)
def test_a_hundred_updates_are_those_of_the_definition(rule: str, optimizer: str) -> None:
    start = [(part.to_dense(), part.mask, part.bias.detach()) for part in started("masked", rule) if part.bias is not None]
    network = Network(start, optimizer, SETTINGS.learning_rate)
    due = updates_due(STEPS, 1, UPDATES[rule])
    expected = plainly_trained(network, *data(), rule, due, SPARSITY, SETTINGS.batch, SEED)
    # Each rule and each optimizer with each layer, but not all three of all.
    layer = LAYERS[(FREE.index(rule) + list(OPTIMIZERS).index(optimizer)) % len(LAYERS)]
    found = reached(layer, rule, optimizer)
    torch.testing.assert_close(found.losses, expected.losses, rtol=0, atol=1e-9)
    for one, other in zip(found.masks, expected.masks, strict=True):
        assert torch.equal(one, other), layer
    for one, other in zip((*found.weights, *found.biases), (*expected.weights, *expected.biases), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
    for own, defined in zip(found.state, expected.state, strict=True):
        assert own.keys() == defined.keys() != set()
        for name, slot in defined.items():
            torch.testing.assert_close(own[name], slot, rtol=0, atol=1e-9)
