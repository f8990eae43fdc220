"""Trained networks whose small activations are 0: what that costs in accuracy, and what it saves for one sample."""

import statistics

from bench import grids
from bench.cases import Case
from bench.engine.pairing import Racer
from bench.runs.row import Facts
from bench.shapes import Shape
from bench.works.gates import pass_gate
from bench.works.once_per_run import find_once, once_per_run
from bench.works.problems import layout_of
from bench.works.trained.experiment import NO_SEARCH, dense_arm, find_rate, load_for, model_of, search, settings_of
from bench.works.trained.parameters import packed, unpack
from bench.works.trained.thresholds import Thresholded, one_by_one, thresholds_for, zeros_of
from sparse_models.costs import counted_flops, executed_flops, size
from sparse_models.layers import LAYERS
from sparse_models.models import MLP
from sparse_models.search import Search
from sparse_models.training import evaluate, train
from sparse_models.updates import UPDATES

prepare = find_rate  # see bench.engine.preparing


def bench_threshold(case: Case, race: Racer) -> Facts:
    """One sample through a trained MLP whose small activations are 0, against trained dense; its accuracy over some seeds."""
    pass_gate(case, case.layer, layout_of(case, case.layer, "batch-major"))
    data, dense_case = load_for(case), dense_arm(case)
    model, dense = (trained(arm, 0, once=race.once) for arm in (case, dense_case))
    own = Thresholded(model, thresholds_for(model, data.train.inputs, case.zeros))
    samples = data.test.inputs
    # Without thresholds layers that do not skip zeros may go through the whole chain in one call.
    network = own if LAYERS[case.layer].skips_zeros or any(own.thresholds) else model
    race(one_by_one(network, samples), one_by_one(dense, samples), case.device)

    def find_facts() -> Facts:
        seeds = range(1 if race.once else grids.SEEDS)
        qualities = [_thresholded_quality(case, seed, once=race.once) for seed in seeds]
        dense_accuracies = [_plain_accuracy(dense_case._replace(zeros=0.0), seed, once=race.once) for seed in seeds]
        needed = [round(layer.nnz * (1 - zeros)) for layer, zeros in zip(model, zeros_of(own, samples), strict=True)]
        weights = size(list(dense)).weights
        return {
            **size(list(model))._asdict(),
            "seeds": len(seeds),
            "thresholds": own.thresholds,
            "hidden_zeros": [statistics.fmean(of_layer) for of_layer in zip(*(zeros for _, zeros in qualities), strict=True)],
            "test_accuracy": statistics.fmean(accuracy for accuracy, _ in qualities),
            "dense_test_accuracy": statistics.fmean(dense_accuracies),
            "seed_test_accuracies": [accuracy for accuracy, _ in qualities],
            "dense_seed_test_accuracies": dense_accuracies,
            "test_samples": len(samples),
            "flops_counted": counted_flops(sum(needed), 1, "forward"),
            "flops_executed": executed_flops(list(model), 1, "forward"),
            "dense_flops_counted": counted_flops(weights, 1, "forward"),
            "dense_flops_executed": counted_flops(weights, 1, "forward"),
        }

    return find_once(f"facts {case}", find_facts)


def to_prepare(case: Case) -> list[Case]:
    """Return the trainings whose learning rates are searched for: of a case's arm and of dense's."""
    return [training_of(arm, 0) for arm in (dense_arm(case), case)]


def training_of(case: Case, seed: int) -> Case:
    """Return the training of a case's arm, which is the same for all shares of zeros."""
    _, batch = grids.epochs_and_batch(case.data)
    return case._replace(op="train", shape=str(Shape.parse(case.shape)._replace(batch=batch)), seed=seed, zeros=0.0)


def trained(case: Case, seed: int, *, once: bool) -> MLP:
    """Return the network of a case's arm, trained once a run at the learning rate that suits the arm.

    Its masks are those that a seed draws, and do not move, so that its parameters tell all of it.
    """
    case = training_of(case, seed)
    parameters = _trained_parameters(case, once=once)
    model = model_of(case)
    unpack(parameters, model)
    return model.eval()


@once_per_run
def _trained_parameters(case: Case, *, once: bool) -> list[str]:
    """Return the parameters of a training's network, which the other shares and the next processes need as well."""
    settings = settings_of(case)
    found = NO_SEARCH if once else Search(*search(case._replace(seed=0), settings))  # type: ignore[arg-type]  # as JSON has it
    settings = settings._replace(learning_rate=found.learning_rate, epochs=1 if once else settings.epochs)
    model = model_of(case)
    for _ in train(model, load_for(case).train, settings, case.seed, UPDATES[case.update]):
        pass
    return packed(model)


@once_per_run
def _plain_accuracy(case: Case, seed: int, *, once: bool) -> float:
    return evaluate(trained(case, seed, once=once), load_for(case).test).accuracy


def _thresholded_quality(case: Case, seed: int, *, once: bool) -> tuple[float, list[float]]:
    """Return the test accuracy of a seed's network with thresholds, and the share of zeros of its hidden layers."""
    data, model = load_for(case), trained(case, seed, once=once)
    own = Thresholded(model, thresholds_for(model, data.train.inputs, case.zeros))
    return evaluate(own, data.test).accuracy, zeros_of(own, data.test.inputs)[1:]
