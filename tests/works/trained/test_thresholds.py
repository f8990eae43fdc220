import importlib
import json
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench import bench_threshold, bench_train, grids
from bench.cases import Case
from bench.engine.jobs import Job
from bench.engine.preparing import preparations
from bench.works import once_per_run
from bench.works.trained import experiment
from bench.works.trained.parameters import packed, unpack
from bench.works.trained.thresholds import Thresholded, one_by_one, thresholds_for, zeros_of
from sparse_models.models import MLP, convert, dense_mlp, draw
from sparse_models.search import Search
from sparse_models.training import train
from tests.strategies import generator, normal, seeds, sizes

WHERE = ("64x8x8x10b1", 0.8, "cpu", "float32", 1)
CASE = Case("threshold", "sparse", "tiled", "static", *WHERE, "digits", "tuned", distribution="uniform")
networks = st.builds(lambda seed, sizes: dense_mlp(convert(draw(sizes, generator(seed)), dtype=torch.float64)),
                     seeds, st.lists(sizes, min_size=2, max_size=4))  # fmt: skip


def samples(model: MLP, count: int) -> torch.Tensor:
    return normal(1, count, next(iter(model)).in_features)


@given(networks, sizes)
def test_without_thresholds_it_is_the_network(model: MLP, count: int) -> None:
    x = samples(model, count)
    assert torch.equal(Thresholded(model, [0.0] * (len(model.layers) - 1))(x), model(x))


@given(networks, sizes, st.floats(0, 1))
def test_thresholds_leave_at_least_their_share_of_zeros_where_activations_are_those_they_were_chosen_on(
    model: MLP, count: int, share: float
) -> None:
    x = samples(model, count)
    chosen = thresholds_for(model, x, share)
    assert len(chosen) == len(model.layers) - 1
    of_inputs, *of_hidden = zeros_of(Thresholded(model, chosen), x)
    assert of_inputs == 0
    if of_hidden:  # later layers are given other activations than those without thresholds
        assert of_hidden[0] >= share - 1e-9
        assert of_hidden[0] >= zeros_of(Thresholded(model, [0.0] * len(chosen)), x)[1]


def test_samples_take_turns() -> None:
    model = dense_mlp(convert(draw((5, 4, 3), generator(0)), dtype=torch.float64))
    x = samples(model, 3)
    forward = one_by_one(model, x)
    found = [forward() for _ in range(4)]
    assert torch.allclose(torch.cat(found[:3]), model(x))
    assert torch.equal(found[3], found[0])


@given(networks, st.sampled_from([torch.float64, torch.float32, torch.bfloat16]))
def test_parameters_are_passed_on_bit_by_bit(model: MLP, dtype: torch.dtype) -> None:
    model = model.to(dtype)
    expected = [one.detach().clone() for one in model.parameters()]
    texts = json.loads(json.dumps(packed(model)))
    with torch.no_grad():
        for one in model.parameters():
            one.fill_(torch.nan)
    unpack(texts, model)
    assert all(map(torch.equal, model.parameters(), expected))


def test_a_network_is_trained_once_a_run_whatever_its_share_of_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    trainings = list[MLP]()

    def counted(model: MLP, *given: Any) -> Iterator[Any]:
        trainings.append(model)
        return train(model, *given)

    monkeypatch.setattr("bench.bench_threshold.train", counted)
    monkeypatch.setattr(once_per_run, "KNOWN", {})
    networks = []
    for share in (0.5, 0.9):
        networks.append(bench_threshold.trained(CASE._replace(zeros=share), 1, once=True))
        monkeypatch.setattr(once_per_run, "KNOWN", json.loads(json.dumps(once_per_run.KNOWN)))  # to the next process
    [model] = trainings
    for network in networks:
        assert all(map(torch.equal, network.parameters(), model.parameters()))
        assert all(torch.equal(own.mask, its.mask) for own, its in zip(network, model, strict=True))
    bench_threshold.trained(CASE, 2, once=True)
    assert len(trainings) == 2


def test_two_rates_are_prepared_for_all_shares_of_zeros_and_no_other_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once_per_run, "KNOWN", {})
    monkeypatch.setattr(grids, "epochs_and_batch", lambda _: (1, 128))
    searched = Mock(return_value=Search(1e-3, 1, 0.0))
    monkeypatch.setattr(experiment, "search_learning_rate", searched)
    trained = CASE._replace(op="train", shape="64x8x8x10b128")  # which needs the same
    jobs = [Job("", bench_threshold.__name__, "", CASE._replace(zeros=share)) for share in (0.5, 0.9)]
    prepared = preparations([*jobs, Job("", bench_train.__name__, "", trained)])
    assert [case.model for _, _, case in prepared] == ["dense", "sparse"]
    for module, function, case in prepared:
        getattr(importlib.import_module(module), function)(case)
    assert searched.call_count == 2
    for arm in (CASE._replace(zeros=0.9), experiment.dense_arm(CASE)):
        bench_threshold.trained(arm, 3, once=False)
    assert searched.call_count == 2
