"""Whatever device and number type torch gives new tensors by default, layers on a CPU compute what they always do."""

import copy
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import torch
from torch import Tensor, nn

from sparse_models import GradualPruner, densify, sparsify
from sparse_models.data import DATA, Split, reshuffled
from sparse_models.errors import InputError
from sparse_models.fused_step import hold
from sparse_models.kernels.cpu.bounds import roofline
from sparse_models.kernels.cpu.chain._factors import Factors
from sparse_models.layers import LAYERS
from sparse_models.loading import own_data
from sparse_models.models import MLP, Drawn, convert, draw, sparse_mlp
from sparse_models.testing import Problem, gate
from sparse_models.testing.sample import BLOCK, Part, spread
from sparse_models.training import FusedStep, Settings, optimizer_for, train
from sparse_models.updates import UPDATES, Moves, update_masks
from tests.helpers.processes.commands import output
from tests.strategies import DEFAULT_LAYERS, RULES_OF, generator, mask_for, mlp_of, normal, of_each_kind

SIZES = (300, 48, 12)
BATCHES = (1, 2, 64)


def elsewhere() -> AbstractContextManager[object]:
    """A default device that has no memory: a kernel that writes to a tensor of it ends the process."""
    return torch.device("meta")


@contextmanager
def of_type(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


DEFAULTS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "meta": elsewhere,
    "float64": lambda: of_type(torch.float64),
    "bfloat16": lambda: of_type(torch.bfloat16),
}


def same(name: str, defaults: str, lived: Callable[[], list[Tensor]]) -> None:
    """First as told, lest anything that is held was made otherwise."""
    with DEFAULTS[defaults]():
        found = lived()
    torch.testing.assert_close(found, lived(), rtol=0, atol=0, equal_nan=True, msg=lambda told: f"{name}: {told}")


def weights_and_batches() -> tuple[Drawn, list[tuple[Tensor, Tensor]]]:
    """In float32, which is what kernels for few samples are for."""
    labels = [torch.randint(SIZES[-1], (size,), generator=generator(size)) for size in BATCHES]
    inputs = [normal(size, size, SIZES[0], dtype=torch.float32) for size in BATCHES]
    return convert(draw(SIZES, generator(0))), list(zip(inputs, labels, strict=True))


@pytest.mark.parametrize(
    ("name", "defaults"),
    [(name, defaults) for defaults in DEFAULTS for name in (LAYERS if defaults == "meta" else DEFAULT_LAYERS)],
)
def test_outputs_losses_and_gradients_are_the_same(name: str, defaults: str) -> None:
    """Each several times, of which later ones are calls that are ready."""
    weights, samples = weights_and_batches()
    masks = [mask_for(name, weight.shape, 0.8) for weight, _ in weights]

    def lived() -> list[Tensor]:
        layers = [LAYERS[name](weight, mask, bias) for (weight, bias), mask in zip(weights, masks, strict=True)]
        model, found = MLP(layers), list[Tensor]()
        for x, labels in samples:
            for _ in range(3):
                model.zero_grad()
                own = x.clone().requires_grad_()
                layers[0](own).square().sum().backward()
                model.cross_entropy(own, labels).backward()
                found += [one.grad for one in (own, *model.parameters()) if one.grad is not None]
            model.eval()
            with torch.no_grad():
                found += [output for _ in range(3) for output in (layers[0](x), model(x))]
            model.train()
        return found + [tensor for layer in layers for tensor in (layer.to_dense(), layer.mask)]

    same(name, defaults, lived)


@pytest.mark.parametrize("name", of_each_kind(LAYERS))
def test_the_gate_tells_the_same(name: str) -> None:
    [(weight, bias), _], samples = weights_and_batches()
    for x, _ in samples:
        problem = Problem(weight, mask_for(name, weight.shape, 0.8), bias, x, normal(1, len(x), SIZES[1], dtype=weight.dtype))
        with elsewhere():
            gate(LAYERS[name], problem)


@pytest.mark.parametrize(("name", "rule"), [(name, rule) for name in DEFAULT_LAYERS for rule in RULES_OF[name]])
def test_trainings_whose_masks_move_are_the_same(name: str, rule: str) -> None:
    (weights, samples), update = weights_and_batches(), UPDATES[rule]

    def lived() -> list[Tensor]:
        model, chosen = sparse_mlp(weights, name, LAYERS[name].pattern.nearest(0.8), generator(1)), generator(2)
        optimizer = optimizer_for("sgd", model.parameters(), 0.1)
        step, found = FusedStep(model, optimizer), list[Tensor]()
        sparsities = [0.9] * len(list(model)) if update.resizes else None
        for held in (Moves(), None):
            for x, labels in samples:
                loss, gradients = step.watching(list(model), x, labels)
                update_masks(
                    model, update, 0.3, optimizer=optimizer, gradients=gradients, generator=chosen, moves=held,
                    sparsities=sparsities,
                )  # fmt: skip
                found += [loss, *(tensor for layer in model for tensor in (layer.to_dense(), layer.mask))]
        return found

    same(name, "meta", lived)


@pytest.mark.parametrize("name", [name for name in of_each_kind(LAYERS) if LAYERS[name].pattern.of_network is None])
@pytest.mark.parametrize("by", ["magnitude", "random"])
def test_what_is_made_sparse_pruned_and_made_dense_is_the_same(name: str, by: str) -> None:
    dense = nn.Sequential(nn.Linear(300, 48), nn.ReLU(), nn.Linear(48, 12))
    (_, samples), pattern = weights_and_batches(), LAYERS[name].pattern

    def lived() -> list[Tensor]:
        model = copy.deepcopy(dense)
        optimizer = optimizer_for("sgd", model.parameters(), 0.1)
        sparsify(model, name, sparsity=pattern.nearest(0.5), by=by, optimizer=optimizer, generator=generator(1))
        pruners = [
            GradualPruner(model, optimizer, sparsity=0.9, end=3, by=by, generator=generator(2))
            for _ in range(pattern.sparsities is None)
        ]
        for x, labels in samples:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), labels).backward()
            optimizer.step()
            for pruner in pruners:
                pruner.step()
        with torch.no_grad():
            found = [model(x) for x, _ in samples]
        return found + [parameter.detach() for parameter in densify(model).parameters()]

    same(name, "meta", lived)


@pytest.mark.parametrize("defaults", DEFAULTS)
@pytest.mark.parametrize("name", sorted(set(DATA) - set(DATA.absent)))
def test_data_sets_are_the_same(name: str, defaults: str) -> None:
    same(name, defaults, lambda: [tensor for part in reshuffled(DATA[name](), 3)[:3] for tensor in part])


@pytest.mark.parametrize("defaults", DEFAULTS)
def test_a_whole_training_is_the_same(defaults: str) -> None:
    (weights, samples), settings = weights_and_batches(), Settings(2, 16, 0.1, "sgd", update_interval=2)

    def lived() -> list[Tensor]:
        model = sparse_mlp(weights, "tiled", 0.8, generator(1))
        return [*train(model, Split(*samples[-1]), settings, 0, UPDATES["set"]), *(layer.to_dense() for layer in model)]

    same("tiled", defaults, lived)


def test_masks_move_by_gradients_as_factors_the_same() -> None:
    slopes, inputs, weight, mask = normal(0, 20, 5), normal(1, 20, 7), normal(2, 5, 7), mask_for("tiled", (5, 7), 0.5)

    def lived() -> list[Tensor]:
        layer = LAYERS["tiled"](weight, mask, None)
        update_masks([layer], UPDATES["rigl"], 0.5, gradients={layer: Factors.of(slopes, inputs)}, moves=Moves())
        return [layer.mask, layer.to_dense()]

    same("tiled", "meta", lived)


def test_what_is_no_number_is_refused_all_the_same() -> None:
    layer = LAYERS["tiled"](normal(2, 5, 7), mask_for("tiled", (5, 7), 0.5), None)
    gradient = normal(3, 5, 7).fill_(torch.nan)
    with elsewhere(), pytest.raises(InputError, match="NaN"):
        update_masks([layer], UPDATES["rigl"], 0.5, gradients={layer: gradient}, moves=Moves())


def test_places_at_which_large_weights_are_checked_are_there() -> None:
    with elsewhere():
        for size in (BLOCK, 5 * BLOCK + 3):
            found = spread(size)
            assert found[-1] == size - 1
            assert Part(0, found, size).cut().places.is_cpu


def test_arrays_of_ones_own_are_split_the_same() -> None:
    x, y = normal(0, 30, 4).numpy(), torch.arange(30).remainder(3).numpy()
    same("arrays", "meta", lambda: [tensor for part in own_data(x, y, "own")[:3] for tensor in part])


IMPORTED = """
import torch
torch.set_default_device("meta")
from sparse_models.layers import LAYERS
from sparse_models.masks import random_score

x = torch.ones(2, 64, device="cpu")
for name in ("tiled", "block16", "two_four_transposable"):
    pattern = LAYERS[name].pattern
    mask = pattern.from_score(random_score((32, 64), torch.Generator().manual_seed(0)), pattern.nearest(0.5))
    layer = LAYERS[name](torch.ones(32, 64, device="cpu"), mask, None)
    for batch in (1, 2):
        torch.testing.assert_close(layer(x[:batch])[-1], mask.sum(1).float())
"""


def test_what_is_made_as_the_package_is_loaded_is_on_a_cpu() -> None:
    output([sys.executable, "-c", IMPORTED])


def test_steps_that_are_counted_elsewhere_are_not_counted_by_a_kernel() -> None:
    """As Adam does where torch's default is a GPU; of SGD nothing is counted."""
    model = mlp_of("tiled", convert(draw(SIZES, generator(0))), 0.8)
    optimizer = torch.optim.Adam(model.parameters())
    x, labels = weights_and_batches()[1][-1]
    FusedStep(model, optimizer)(x, labels)
    assert hold(model, optimizer, x) is not None
    for state in optimizer.state.values():
        state["step"] = state["step"].to("meta")
    assert hold(model, optimizer, x) is None


def test_what_a_machine_can_do_at_best_is_found() -> None:
    with elsewhere():
        assert roofline.bound(2**12, "float32", 0.0) > 0
