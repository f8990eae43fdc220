"""Networks that are trained, pruned and fine-tuned: which weights go, that they stay away, and what the test split is for."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bench import grids
from bench.models import pruned
from bench.models.pruned import BUILD, drawn, fit, largest, perceptron, prune, pruned_layers, sparse_of
from sparse_models.data import DATA, Data, Split
from sparse_models.errors import InputError
from sparse_models.layers import LAYERS, SparseLinear
from sparse_models.masks import UNSTRUCTURED, count_kept
from tests.strategies import generator, normal, seeds, sparsities


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks on few samples, a class of which is a feature."""
    inputs = normal(0, 90, 64, dtype=torch.float32)
    parts = [Split(part, part[:, :10].argmax(1)) for part in inputs.split(30)]
    monkeypatch.setattr(pruned, "_data", lambda _: Data(parts[0], parts[1], parts[2], 10))
    pruned.trained.cache_clear()


def small(seed: int, chain: tuple[int, ...] = (5, 7, 6, 3)) -> nn.Sequential:
    module = perceptron(chain)
    for number, one in enumerate(module.parameters()):
        one.data = normal(seed + number, *one.shape, dtype=torch.float32)
    return module


@given(seeds, sparsities)
def test_the_largest_of_all_layers_but_the_last_are_kept(seed: int, sparsity: float) -> None:
    module = small(seed)
    masks = largest(module, UNSTRUCTURED, sparsity)
    assert list(masks) == ["0", "2"] == pruned_layers(module)
    weights = {name: module.get_parameter(f"{name}.weight").detach().abs() for name in masks}
    ranked = sorted((float(value) for weight in weights.values() for value in weight.flatten()), reverse=True)
    kept = sorted((float(value) for name, weight in weights.items() for value in weight[masks[name]]), reverse=True)
    assert kept == ranked[: sum(count_kept(weight.numel(), sparsity) for weight in weights.values())]


@settings(max_examples=12)
@given(seeds, st.sampled_from([0.5, 0.9]), st.sampled_from(["masked", "tiled"]))
def test_fine_tuning_is_that_of_the_sparse_layers(seed: int, sparsity: float, layer: str) -> None:
    """A dense network whose weights are held at 0 is trained as one of the layers that it is measured with."""
    split = Split(normal(seed, 20, 5, dtype=torch.float32), torch.randint(3, (20,), generator=generator(seed)))
    data, dense = Data(split, split, split, 3), small(seed)
    masks = largest(dense, UNSTRUCTURED, sparsity)
    sparse = sparse_of(copy.deepcopy(dense), LAYERS[layer], masks)
    pruned._mask(dense, masks)
    for module, own in ((dense, masks), (sparse, {})):
        fit(module, data, 2, 1e-2, seed, own)
    for name, mask in masks.items():
        weight = dense.get_parameter(f"{name}.weight")
        assert not weight[~mask].any()
        held = sparse.get_submodule(name)
        assert isinstance(held, SparseLinear)
        torch.testing.assert_close(held.to_dense(), weight, rtol=1e-3, atol=1e-4)


def test_nothing_hangs_on_the_test_split(monkeypatch: pytest.MonkeyPatch) -> None:
    found = prune("digits-mlp", UNSTRUCTURED, 0.9, 0, 1, 2)
    data = pruned._data("digits-mlp")
    other = Split(data.test.inputs, (data.test.labels + 1) % 10)
    monkeypatch.setattr(pruned, "_data", lambda _: data._replace(test=other))
    pruned.trained.cache_clear()
    again = prune("digits-mlp", UNSTRUCTURED, 0.9, 0, 1, 2)
    assert all(torch.equal(mask, again.masks[name]) for name, mask in found.masks.items())
    assert all(torch.equal(*pair) for pair in zip(found.module.parameters(), again.module.parameters(), strict=True))
    assert found.tuned != again.tuned


def test_each_seed_is_a_network_of_its_own_whose_training_its_sparsities_share(monkeypatch: pytest.MonkeyPatch) -> None:
    trainings: list[tuple[float, int]] = []
    monkeypatch.setattr(pruned, "fit", lambda module, data, epochs, rate, seed, masks: trainings.append((rate, seed)))
    found = [prune("digits-mlp", UNSTRUCTURED, at, seed, 3, 2) for seed in range(3) for at in (0.5, 0.9)]
    assert len({one.dense for one in found}) == 3
    dense = [(pruned.LEARNING_RATE, seed) for seed in range(3)]
    assert sorted(trainings) == [*((pruned.TUNING_RATE, seed) for seed in (3, 3, 4, 4, 5, 5)), *dense]


@pytest.mark.parametrize("name", grids.NETWORKS)
def test_a_network_has_the_numbers_of_its_data_set(name: str) -> None:
    data, chain = grids.NETWORKS[name]
    assert data in DATA
    features, classes = (int(chain.split("x")[place]) for place in (0, -1))
    assert features == grids.FEATURES[data]
    assert drawn(name, 0)(torch.rand(2, features)).shape == (2, classes)
    assert torch.equal(*(next(drawn(name, 1).parameters()) for _ in range(2)))
    assert 1_000 < sum(one.numel() for one in BUILD[name]().parameters()) < 300_000


def test_all_layers_at_once_put_out_what_they_do_one_by_one() -> None:
    masks = largest(drawn("digits-mlp", 0), UNSTRUCTURED, 0.8)
    ways = [sparse_of(drawn("digits-mlp", 0), LAYERS["tiled"], masks, at_once=at_once).eval() for at_once in (False, True)]
    x = normal(1, 70, 64, dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(*(way(x) for way in ways))
    conv = drawn("digits-conv", 0)
    masks = largest(conv, UNSTRUCTURED, 0.5)
    with pytest.raises(InputError, match="expected linear layers with ReLU between and a pattern that keeps all"):
        sparse_of(conv, LAYERS["tiled"], masks, at_once=True)
