"""The search for a learning rate: by successive halving, on the training split, judged by the validation split."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparse_models import search
from sparse_models.data import Data, Split
from sparse_models.models import dense_mlp, draw, sparse_mlp
from sparse_models.search import search_learning_rate
from sparse_models.training import Quality, Settings
from sparse_models.updates import UPDATES
from tests.sparse_models.test_training import SETTINGS, SIZES, samples
from tests.strategies import MOVING_RULES, generator


class Recorder:
    """Stands in for a data set and a model of known quality at each learning rate and seed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, accuracy: dict[float, list[float]]) -> None:
        self.trained: list[tuple[float, int]] = []
        self.trained_on: list[Split] = []
        self.judged_on: list[Split] = []

        def fake_train(model: int, data: Split, settings: Settings, seed: int, update: object) -> Iterator[torch.Tensor]:
            self.trained.append((settings.learning_rate, seed))
            self.trained_on.append(data)
            yield torch.zeros(1)

        def fake_evaluate(model: int, data: Split) -> Quality:
            self.judged_on.append(data)
            rate, seed = self.trained[-1]
            return Quality(0.0, accuracy[rate][seed])

        monkeypatch.setattr(search, "train", fake_train)
        monkeypatch.setattr(search, "evaluate", fake_evaluate)


def test_search_halves_and_returns_the_best_on_average(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(monkeypatch, {0.1: [0.5, 0.0], 0.2: [0.8, 0.9], 0.3: [0.9, 0.1], 0.4: [0.7, 0.0]})
    nothing = samples(0)
    found = search_learning_rate(
        lambda seed: dense_mlp(draw((1, 1), generator(seed))),
        Data(nothing, nothing, nothing, 4),
        SETTINGS,
        rates=(0.1, 0.2, 0.3, 0.4),
        seeds=(0, 1),
    )
    assert (found.learning_rate, found.trainings) == (0.2, 6)
    assert recorder.trained == [(0.1, 0), (0.2, 0), (0.3, 0), (0.4, 0), (0.3, 1), (0.2, 1)]


@given(st.integers(1, 9), st.integers(0, 8), st.integers(0, 8))
def test_no_choice_lies_on_an_edge_but_where_the_reach_ends(count: int, first: int, peak: int) -> None:
    reach = [10.0**power for power in range(-9, 0)]
    rates = reach[first : first + count]
    with pytest.MonkeyPatch.context() as patch:
        # One peak: the accuracy falls away from it on both sides.
        recorder = Recorder(patch, {rate: [1 - abs(number - peak) / 10] * 2 for number, rate in enumerate(reach)})
        nothing = samples(0)
        model = dense_mlp(draw((1, 1), generator(0)))
        found = search_learning_rate(
            lambda seed: model, Data(nothing, nothing, nothing, 4), SETTINGS, rates=rates, seeds=(0, 1), reach=reach
        )
    assert found.learning_rate == reach[peak]
    assert found.trainings == len(recorder.trained)
    tried = {rate for rate, _ in recorder.trained}
    assert {reach[max(0, peak - 1)], reach[min(8, peak + 1)]} <= tried
    beyond = tried - set(rates)
    assert (
        sorted(recorder.trained[-2 * len(beyond) :]) == sorted((rate, seed) for rate in beyond for seed in (0, 1)) or not beyond
    )


def test_what_a_search_costs_is_told_in_cpu_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    Recorder(monkeypatch, {0.1: [0.5]})
    monkeypatch.setattr("sparse_models.search.time.process_time", iter([1.0, 4.5]).__next__)
    model, nothing = dense_mlp(draw((1, 1), generator(0))), samples(0)
    found = search_learning_rate(lambda _: model, Data(nothing, nothing, nothing, 4), SETTINGS, rates=(0.1,), seeds=(0,))
    assert found == (0.1, 1, 3.5)


@pytest.mark.parametrize("update", ["static", *MOVING_RULES])
def test_search_survives_a_rate_that_diverges(update: str) -> None:
    data = Data(samples(1), samples(2), samples(3), 4)
    found = search_learning_rate(
        lambda seed: sparse_mlp(draw(SIZES, generator(seed)), "csr", 0.5, generator(seed)),
        data,
        SETTINGS._replace(optimizer="sgd"),
        rates=(1e300, 1e-2, 1e250),
        seeds=(0,),
        update=UPDATES[update],
    )
    assert (found.learning_rate, found.trainings) == (1e-2, 3)


def test_search_trains_on_the_training_split_and_judges_by_the_validation_split(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(monkeypatch, {0.1: [0.5], 0.2: [0.8]})
    data = Data(samples(1), samples(2), samples(3), 4)
    build = dense_mlp(draw((1, 1), generator(0)))
    search_learning_rate(lambda seed: build, data, SETTINGS, rates=(0.1, 0.2), seeds=(0,))
    assert all(split is data.train for split in recorder.trained_on)
    assert all(split is data.validation for split in recorder.judged_on)
    assert len(recorder.judged_on) == 2
