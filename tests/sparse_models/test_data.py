import pytest
import torch

from sparse_models.data import DATA
from sparse_models.models import convert, dense_mlp, draw
from sparse_models.training import Settings, evaluate, train
from tests.strategies import generator


@pytest.mark.parametrize("name", DATA)
def test_the_split_is_fixed(name: str) -> None:
    first, second = DATA[name](), DATA[name]()
    for one, other in zip(first[:3], second[:3], strict=True):
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.labels, other.labels)


@pytest.mark.parametrize("name", DATA)
def test_no_test_sample_is_trained_on(name: str) -> None:
    data = DATA[name]()
    seen = {tuple(row) for split in data[:2] for row in split.inputs.tolist()}
    assert not any(tuple(row) in seen for row in data.test.inputs.tolist())


@pytest.mark.parametrize("name", ["teacher", "digits"])
def test_settings_are_chosen_on_other_samples_than_are_trained_on(name: str) -> None:
    data = DATA[name]()
    seen = {tuple(row) for row in data.train.inputs.tolist()}
    assert not any(tuple(row) in seen for row in data.validation.inputs.tolist())


@pytest.mark.parametrize("name", DATA)
def test_labels_and_inputs_are_usable(name: str) -> None:
    for split in DATA[name]()[:3]:
        assert split.inputs.dtype == torch.float32
        assert split.inputs.isfinite().all()
        assert split.labels.dtype == torch.int64
        assert sorted(split.labels.unique().tolist()) == list(range(10))


def test_the_seeds_random_set_has_4096_samples_of_100_features() -> None:
    assert DATA["random"]().train.inputs.shape == (4096, 100)


def test_digits_are_all_1797_of_64_pixels() -> None:
    data = DATA["digits"]()
    assert sum(len(split.labels) for split in data[:3]) == 1797
    assert data.train.inputs.shape[1] == 64


@pytest.mark.parametrize(("name", "low", "high"), [("random", 0.0, 0.2), ("teacher", 0.7, 1.0), ("digits", 0.9, 1.0)])
def test_what_can_be_learned_is_learned_and_noise_is_not(name: str, low: float, high: float) -> None:
    data = DATA[name]()
    model = dense_mlp(convert(draw((data.train.inputs.shape[1], 64, 10), generator(0))))
    for _ in train(model, data.train, Settings(epochs=15, batch=128, learning_rate=3e-3), seed=0):
        pass
    assert low <= evaluate(model, data.test).accuracy <= high
