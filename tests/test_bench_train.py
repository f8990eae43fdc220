import itertools
import math
import time
from collections.abc import Iterator
from typing import Any

import pytest
from torch import Tensor

from bench import bench_train  # whose function of that name would be taken for a benchmark here
from bench.bench_train import Arm
from bench.cases import Case
from bench.engine.pairing import Patience, Plan
from bench.engine.timed import Timed
from bench.works.replays import Works
from bench.works.trained.experiment import load_for, settings_of
from sparse_models.errors import DivergedError
from sparse_models.kernels.cpu._compile import KERNELS
from sparse_models.models import MLP
from sparse_models.search import Search
from sparse_models.training import evaluate, train
from tests.helpers.kernel_checks import forget_kernels


def test_an_epoch_more_than_a_training_has_is_refused_by_name() -> None:
    case = Case(
        "train", "sparse", "csr", "static", "64x8x10b128", 0.5, "cpu", "float32", 1, "digits", "seed", distribution="uniform"
    )
    arm = Arm(case, load_for(case), settings_of(case)._replace(epochs=2))
    for _ in range(2):
        arm.epoch()
    with pytest.raises(RuntimeError, match="sparse csr: expected at most 2 epochs, got a call for one more"):
        arm.epoch()


def test_a_training_tells_how_accurate_it_was_after_each_epoch_without_being_another_for_it() -> None:
    what = ("train", "sparse", "csr", "static", "64x8x10b128", 0.5, "cpu", "float32", 1, "digits", "seed")
    case = Case(*what, distribution="uniform")
    told = bench_train.bench_train(case, Timed(case, time.perf_counter, Patience()))
    data, settings = load_for(case), settings_of(case)
    arm = Arm(case, data, settings)
    accuracies, on_test = [], []
    for _ in range(settings.epochs):
        arm.epoch()
        accuracies.append(evaluate(arm.model, data.validation).accuracy)
        on_test.append(evaluate(arm.model, data.test).accuracy)
    assert (told["epoch_accuracies"], told["epoch_test_accuracies"]) == (accuracies, on_test)
    assert told["final_loss"] == evaluate(arm.model, data.train).loss
    assert len(told["dense_epoch_accuracies"]) == len(told["dense_epoch_test_accuracies"]) == settings.epochs
    assert told["training_peak_bytes"] > told["bytes_stored"]
    assert told["dense_training_peak_bytes"] > 4 * 4 * (64 * 8 + 8 * 10)  # copies under Adam, bytes
    assert (told["test_accuracy"], told["dense_test_accuracy"]) == (on_test[-1], told["dense_epoch_test_accuracies"][-1])


class SlowDense(Timed):
    """By whose clock an epoch takes a second, and three of dense."""

    def __init__(self, case: Case) -> None:
        clock = itertools.count()
        super().__init__(case, lambda: float(next(clock)), Patience())
        self.clock = clock

    def __call__(self, candidate: Works, reference: Works, device: str, plan: Plan | None = None) -> None:
        def three_seconds() -> None:
            next(self.clock), next(self.clock)
            assert callable(reference)
            reference()

        super().__call__(candidate, three_seconds, device, plan)


@pytest.mark.parametrize("model", ["sparse", "narrow", "dense"])
def test_an_arm_other_than_dense_goes_on_until_denses_time_is_over(model: str) -> None:
    layer = "tiled" if model == "sparse" else "dense"
    what = ("train", model, layer, "static", "64x8x10b128", 0.9 * (model != "dense"), "cpu", "float32", 1, "digits", "seed")
    case = Case(*what, distribution="uniform")
    timed, data, settings = SlowDense(case), load_for(case), settings_of(case)
    told = bench_train.bench_train(case, timed)
    later = 2 * settings.epochs * (model != "dense")
    assert list(timed.race.later) == [1.0] * later
    assert len(told["later_epoch_accuracies"]) == len(told["later_epoch_test_accuracies"]) == later
    assert len(told["epoch_accuracies"]) == told["epochs"] == settings.epochs
    longer = Arm(case, data, settings, later)
    for number in range(1, settings.epochs + later + 1):
        longer.epoch()
        longer.look()
        if number == settings.epochs:  # what is told of its end is of here
            ended = evaluate(longer.model, data.train).loss, evaluate(longer.model, data.test).accuracy
            assert ended == (told["final_loss"], told["test_accuracy"])
    assert longer.accuracies == told["epoch_accuracies"] + told["later_epoch_accuracies"]
    assert (longer.end.loss, longer.end.test.accuracy) == (told["final_loss"], told["test_accuracy"])


def test_an_arm_that_diverges_once_it_is_alone_is_told_as_it_was_before(monkeypatch: pytest.MonkeyPatch) -> None:
    what = ("train", "sparse", "tiled", "static", "64x8x10b128", 0.9, "cpu", "float32", 1, "digits", "seed")
    case = Case(*what, distribution="uniform")
    epochs = settings_of(case).epochs
    timed = [SlowDense(case) for _ in range(2)]
    whole = bench_train.bench_train(case, timed[0])

    def diverging(model: MLP, *asked: Any, **more: Any) -> Iterator[Tensor]:
        for number, losses in enumerate(train(model, *asked, **more)):
            if number == epochs + 2:
                for parameter in model.parameters():
                    parameter.data.fill_(math.nan)
                losses.fill_(math.nan)
            yield losses

    monkeypatch.setattr(bench_train, "train", diverging)
    told = bench_train.bench_train(case, timed[1])
    cut = {name: value[:2] if name.startswith("later") else value for name, value in whole.items()}
    assert told == cut
    assert timed[1].race.seconds == timed[0].race.seconds
    assert list(timed[1].race.later) == [1.0] * 2


@pytest.mark.parametrize("update", ["static", "set", "rigl"])
@pytest.mark.parametrize("batch", [100, 1077])  # an odd last batch of 77 samples, and none
def test_no_epoch_has_a_kernel_to_compile_or_load(update: str, batch: int) -> None:
    def compiled() -> int:
        return sum(kernel.cache_info().misses for kernel in KERNELS)

    what = ("train", "sparse", "tiled", update, f"64x8x10b{batch}", 0.5, "cpu", "float32", 1, "digits", "seed")
    case = Case(*what, distribution="uniform", asked_interval=3)
    arm = Arm(case, load_for(case), settings_of(case))
    forget_kernels()
    arm.warm_up()
    before = compiled()
    for _ in range(arm.settings.epochs):
        arm.epoch()
    assert compiled() == before > 0


@pytest.mark.parametrize("model", ["sparse", "dense"])
def test_an_arm_that_diverges_says_so(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = "csr" if model == "sparse" else "dense"
    case = Case(
        "train", model, layer, "static", "64x8x10b128", 0.5, "cpu", "float32", 1, "digits", "seed", distribution="uniform"
    )
    monkeypatch.setattr(bench_train, "NO_SEARCH", Search(1e38, 0, 0.0))
    arm = Arm(case, load_for(case), settings_of(case))
    with pytest.raises(DivergedError, match=rf"^{model} {layer}: expected finite losses, got nan: at the learning rate 1e\+38"):
        arm.epoch()


def test_a_training_on_a_gpu_tells_how_its_steps_were_launched() -> None:
    case = Case(
        "train", "sparse", "csr", "static", "64x8x10b128", 0.5, "cpu", "float32", 1, "digits", "seed", distribution="uniform"
    )
    arm = Arm(case, load_for(case), settings_of(case))
    assert bench_train.launched_as("dense_", arm) == {"dense_launched": "as a graph"}
    arm.not_captured.append("it waits")
    assert bench_train.launched_as("", arm) == {"launched": "by the host", "not_captured": "it waits"}
