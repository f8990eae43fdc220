import itertools
import time

import pytest

from bench import bench_train  # whose function of that name would be taken for a benchmark here
from bench.bench_train import Arm
from bench.cases import Case
from bench.engine.pairing import Patience, Plan
from bench.engine.timed import Timed
from bench.works.replays import Works
from bench.works.trained.experiment import load_for, settings_of
from sparse_models.errors import DivergedError
from sparse_models.kernels.cpu._compile import KERNELS
from sparse_models.search import Search
from sparse_models.training import evaluate
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


@pytest.mark.parametrize("model", ["sparse", "narrow", "dense"])
def test_an_arm_other_than_dense_goes_on_until_denses_time_is_over(model: str) -> None:
    layer = "tiled" if model == "sparse" else "dense"
    what = ("train", model, layer, "static", "64x8x10b128", 0.9 * (model != "dense"), "cpu", "float32", 1, "digits", "seed")
    case, clock = Case(*what, distribution="uniform"), itertools.count()
    timed = Timed(case, lambda: float(next(clock)), Patience())  # each epoch takes a second
    data, settings = load_for(case), settings_of(case)
    raced: list[Plan] = []

    class SlowDense(Timed):
        def __call__(self, candidate: Works, reference: Works, device: str, plan: Plan | None = None) -> None:
            assert plan
            raced.append(plan)

            def three_seconds() -> None:
                next(clock), next(clock)
                assert callable(reference)
                reference()

            super().__call__(candidate, three_seconds, device, plan)

    timed.__class__ = SlowDense
    told = bench_train.bench_train(case, timed)
    later = 2 * settings.epochs * (model != "dense")
    assert list(timed.race.later) == [1.0] * later
    assert len(told["later_epoch_accuracies"]) == len(told["later_epoch_test_accuracies"]) == later
    assert len(told["epoch_accuracies"]) == told["epochs"] == settings.epochs
    longer = Arm(case, data, settings, later)
    for _ in range(settings.epochs + later):
        longer.epoch()
        longer.look()
    assert longer.accuracies == told["epoch_accuracies"] + told["later_epoch_accuracies"]
    assert (longer.end.loss, longer.end.test.accuracy) == (told["final_loss"], told["test_accuracy"])


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
