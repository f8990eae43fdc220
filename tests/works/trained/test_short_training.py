"""The most memory that a training holds: counted by hand for dense, and what rules and layers add to it."""

from itertools import pairwise

import pytest

from bench.cases import Case
from bench.works import once_per_run
from bench.works.trained import short_training
from bench.works.trained.experiment import model_of
from bench.works.trained.short_training import training_peak_bytes
from sparse_models.costs import size
from sparse_models.models import MLP
from sparse_models.training import Settings

SIZES, BATCH = (64, 256, 256, 10), 16
SETTINGS = Settings(epochs=1, batch=BATCH, learning_rate=0.1)
ADAM = 4  # copies: weights, gradients, two moments
WEIGHTS = sum(inputs * outputs for inputs, outputs in pairwise(SIZES))


def case(model: str = "sparse", layer: str = "tiled", update: str = "static", sparsity: float = 0.9) -> Case:
    shape = f"{'x'.join(map(str, SIZES))}b{BATCH}"
    return Case("train", model, layer, update, shape, sparsity, "cpu", "float32", 1, "digits", "seed", distribution="uniform")


def peak(model: str = "sparse", layer: str = "tiled", update: str = "static", sparsity: float = 0.9) -> int:
    found = training_peak_bytes(case(model, layer, update, sparsity), SETTINGS)
    assert found
    return found


@pytest.fixture(autouse=True)
def _nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once_per_run, "KNOWN", {})


def test_dense_holds_four_copies_of_its_weights_and_what_the_first_layer_needs_for_the_last_of_its_gradients() -> None:
    numbers = WEIGHTS + sum(SIZES[1:])
    least = ADAM * 4 * numbers + 4 * BATCH * (SIZES[0] + SIZES[1])  # the batch, and the gradient of what the layer made of it
    assert least <= peak("dense", "dense", sparsity=0.0) <= least + 2**11  # labels, the order of samples, losses


def test_a_sparse_training_holds_its_index_and_as_many_numbers_as_it_has() -> None:
    stored = size(list(model_of(case()))).bytes_stored
    found = peak()
    assert stored + 2 * 4 * WEIGHTS * 0.1 < found < peak("dense", "dense", sparsity=0.0) / 2


def test_the_gradient_of_every_weight_is_seen_where_an_update_needs_it() -> None:
    static, updated = (peak("sparse", "csr", update) for update in ("static", "rigl"))
    assert updated - static > 4 * WEIGHTS / 2  # layer by layer all gradients are held until the masks move


def test_weights_that_become_fewer_take_no_room_for_a_step_that_is_over() -> None:
    assert peak(update="gmp") < 3 * peak("dense", "dense", sparsity=0.0)


def test_a_rule_that_makes_weights_fewer_is_counted_from_all_of_them_on(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = list[int]()

    def shortened(_: Case, model: MLP, *__: object) -> None:
        begun.append(size(list(model)).bytes_stored)
        model.layers = model.layers[:1]

    monkeypatch.setattr(short_training, "train_shortly", shortened)
    assert peak("sparse", "tiled", "gmp") == begun[0] == begun[1]


def test_one_seed_of_a_run_tells_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    first = peak()
    monkeypatch.setattr(short_training, "train_shortly", None)
    assert training_peak_bytes(case()._replace(seed=3), SETTINGS._replace(learning_rate=1.0, epochs=9)) == first
