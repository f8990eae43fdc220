"""The seed's experiment: one MLP trained sparse, narrow and dense, epoch by epoch beside dense at its best."""

import statistics
from collections.abc import Iterator
from functools import lru_cache

import torch

from bench import grids
from bench.cases import Case
from bench.engine.pairing import Plan, Racer
from bench.grids import stored
from bench.runs.row import Facts
from bench.shapes import Shape
from bench.works.gates import pass_gate
from bench.works.once_per_run import find_once, once_per_run
from bench.works.problems import layout_of
from bench.works.trained.dense_training import DenseTraining, pass_dense_gate, trained_as, variant_of
from bench.works.trained.thresholds import Thresholded, one_by_one, thresholds_for, zeros_of
from bench.works.trained.training_flops import training_flops
from sparse_models.costs import counted_flops, counted_training_flops, executed_flops, size
from sparse_models.data import Data, Split, reshuffled
from sparse_models.errors import DivergedError
from sparse_models.layers import LAYERS
from sparse_models.loading import load
from sparse_models.models import MLP, convert, dense_mlp, draw, narrow_mlp, sparse_mlp
from sparse_models.training import Search, Settings, evaluate, search_learning_rate, train
from sparse_models.updates import UPDATES


def bench_train(case: Case, race: Racer) -> Facts:
    """One training of one arm and of dense beside it; a round is an epoch."""
    pass_gate(case, case.layer, layout_of(case, case.layer, "batch-major"))
    data, settings = load_for(case), settings_of(case)
    dense_case = case._replace(model="dense", layer="dense", update="static", sparsity=0.0, distribution=grids.DISTRIBUTION)
    if race.once:
        settings = settings._replace(epochs=1)
    for one in (case, dense_case):
        if one.model != "sparse":
            pass_dense_gate(one, model_of(one), data.train)
    own, dense = (Arm(arm, data, settings) for arm in (case, dense_case))
    for arm in (own, dense):
        arm.warm_up()

    def look() -> None:
        for arm in (own, dense):
            arm.look()

    race(own.epoch, dense.epoch, case.device, Plan(1, 1, pairs=settings.epochs, after=look))
    layers = list(own.model)
    total = size(layers)
    rule, samples = UPDATES[case.update], len(data.train.labels)
    own_quality, dense_quality = evaluate(own.model, data.test), evaluate(dense.model, data.test)
    dense_weights = size(list(dense.model)).weights
    return {
        **total._asdict(),
        "shape": "x".join(map(str, (layers[0].in_features, *(layer.out_features for layer in layers)))),
        "epochs": settings.epochs,
        "optimizer": settings.optimizer,
        "update_interval": settings.update_interval if rule.moves or rule.resizes else 0,
        "learning_rate": own.settings.learning_rate,
        "dense_learning_rate": dense.settings.learning_rate,
        "search_trainings": own.search.trainings,
        "search_seconds": own.search.seconds,
        "final_loss": evaluate(own.model, data.train).loss,
        "test_accuracy": own_quality.accuracy,
        "test_loss": own_quality.loss,
        "test_samples": len(data.test.labels),
        "dense_final_loss": evaluate(dense.model, data.train).loss,
        "dense_test_accuracy": dense_quality.accuracy,
        "dense_test_loss": dense_quality.loss,
        "variant": "eager" if case.model == "sparse" else variant_of(case),
        "dense_variant": variant_of(dense_case),
        "epoch_accuracies": own.accuracies,
        "epoch_test_accuracies": own.test_accuracies,
        "dense_epoch_accuracies": dense.accuracies,
        "dense_epoch_test_accuracies": dense.test_accuracies,
        **training_flops(own.model, rule, samples, settings)._asdict(),
        "dense_flops_counted": counted_training_flops(
            dense_weights, dense_weights, samples * settings.epochs, settings.update_interval, needs_gradient=False
        ),
        "dense_flops_executed": executed_flops(list(dense.model), samples * settings.epochs, "step", input_gradient=False),
    }


def bench_threshold(case: Case, race: Racer) -> Facts:
    """One sample through a trained MLP whose small activations are 0, against trained dense; its accuracy over some seeds."""
    pass_gate(case, case.layer, layout_of(case, case.layer, "batch-major"))
    data, dense_case = load_for(case), case._replace(model="dense", layer="dense", sparsity=0.0)
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


def trained(case: Case, seed: int, *, once: bool) -> MLP:
    """Return the network of a case's arm, trained at the learning rate that suits the arm."""
    _, batch = grids.epochs_and_batch(case.data)
    shape = str(Shape.parse(case.shape)._replace(batch=batch))
    case = case._replace(op="train", shape=shape, seed=seed, zeros=0.0)
    settings = settings_of(case)
    found = NO_SEARCH if once else Search(*search(case._replace(seed=0), settings))  # type: ignore[arg-type]  # as JSON has it
    settings = settings._replace(learning_rate=found.learning_rate, epochs=1 if once else settings.epochs)
    model = model_of(case)
    for _ in train(model, load_for(case).train, settings, seed, UPDATES[case.update]):
        pass
    return model.eval()


@once_per_run
def _plain_accuracy(case: Case, seed: int, *, once: bool) -> float:
    return evaluate(trained(case, seed, once=once), load_for(case).test).accuracy


def _thresholded_quality(case: Case, seed: int, *, once: bool) -> tuple[float, list[float]]:
    """Return the test accuracy of a seed's network with thresholds, and the share of zeros of its hidden layers."""
    data, model = load_for(case), trained(case, seed, once=once)
    own = Thresholded(model, thresholds_for(model, data.train.inputs, case.zeros))
    return evaluate(own, data.test).accuracy, zeros_of(own, data.test.inputs)[1:]


class Arm:
    """One arm of the experiment, trained an epoch at a time."""

    def __init__(self, case: Case, data: Data, settings: Settings) -> None:
        """Build the arm's model from the weights that all arms of a seed share, and find its learning rate."""
        self.case, self.data = case, data
        self.search = NO_SEARCH
        if case.protocol == "tuned":
            self.search = Search(*search(case._replace(seed=0), settings))  # type: ignore[arg-type]  # as JSON returns it
        self.settings = settings._replace(learning_rate=self.search.learning_rate)
        self.model = model_of(case)
        self.accuracies: list[float] = []  # on the validation split, after each epoch
        self.test_accuracies: list[float] = []  # for whoever reads a row, at an epoch that the validation split has chosen
        self._epochs = self._train(self.model, self.data.train, self.settings)

    def _train(self, model: MLP, data: Split, settings: Settings) -> Iterator[torch.Tensor]:
        return train(model, data, settings, self.case.seed, UPDATES[self.case.update])

    def warm_up(self) -> None:
        """Train a throwaway model of the same arm for a few steps, so that no epoch has anything to compile or to load.

        They are steps on a whole batch and on the odd last one of an epoch, the first of all and later ones, each with a mask
        update after it and without. What PyTorch compiles it compiles for the model itself.
        """
        whole, odd = divmod(len(self.data.train.labels), self.settings.batch)
        few = slice(0, min(whole, 1) * self.settings.batch + odd)
        settings = self.settings._replace(epochs=5, update_interval=3, learning_rate=grids.SEED_LEARNING_RATE)
        for _ in self._train(model_of(self.case), Split(*(part[few] for part in self.data.train)), settings):
            pass
        if isinstance(self.model, DenseTraining):
            self.model.load(self.data.train)

    def epoch(self) -> None:
        """Train for one epoch; raises RuntimeError when there is none left: a training cannot be repeated as a work can.

        Raises DivergedError where a loss is no finite number: there is nothing to tell of such an arm, and others go on.
        """
        losses = next(self._epochs, None)
        if losses is None:
            raise RuntimeError(
                f"{self.case.model} {self.case.layer}: expected at most {self.settings.epochs} epochs, got a call for one "
                "more; time a training only as often as it has epochs"
            )
        if not losses.isfinite().all():
            found = float(losses[~losses.isfinite()][0])
            raise DivergedError(
                f"{self.case.model} {self.case.layer}: expected finite losses, got {found}: at the learning rate "
                f"{self.settings.learning_rate:g} this arm diverges; try --protocol tuned"
            )

    def look(self) -> None:
        """Note how accurate the model is by now; what it is on the test split is written down, and chooses nothing."""
        self.accuracies.append(evaluate(self.model, self.data.validation).accuracy)
        self.test_accuracies.append(evaluate(self.model, self.data.test).accuracy)


NO_SEARCH = Search(grids.SEED_LEARNING_RATE, 0, 0.0)


def model_of(case: Case) -> MLP:
    """Return the untrained model of a case's arm; `tuned` scales the sparse layers' weights by 1 / sqrt(density).

    A rule that chooses the first weights by their gradient does so by the first batch of the training samples.
    """
    shape = Shape.parse(case.shape)
    generator = torch.Generator().manual_seed(case.seed)
    drawn = convert(draw(shape.sizes, generator), case.device, getattr(torch, stored(case.dtype)))
    if case.model == "narrow":
        alike = sparse_mlp(drawn, "masked", case.sparsity, generator, distribution=case.distribution)
        return trained_as(case, narrow_mlp(drawn, size(list(alike)).nnz))
    if case.model != "sparse":
        return trained_as(case, dense_mlp(drawn))
    inputs, labels = load_for(case).train
    return sparse_mlp(
        drawn,
        case.layer,
        case.sparsity,
        generator,
        distribution=case.distribution,
        scaled=case.protocol == "tuned",
        update=UPDATES[case.update],
        samples=(inputs[: shape.batch], labels[: shape.batch]),
    )


def settings_of(case: Case) -> Settings:
    """Return the settings that all arms on a data set share: what is asked for, or the data set's own."""
    epochs = case.asked_epochs or grids.epochs_and_batch(case.data)[0]
    interval = case.asked_interval or grids.UPDATE_INTERVAL
    return Settings(epochs, Shape.parse(case.shape).batch, grids.SEED_LEARNING_RATE, update_interval=interval)


def load_for(case: Case) -> Data:
    """Return a case's data set on its device and in its number type, its training and validation samples split by the seed."""
    return _split(case.data, case.device, stored(case.dtype), case.seed)


@lru_cache(maxsize=4)  # the seeds of a search and the one that it is for
def _split(name: str, device: str, dtype: str, seed: int) -> Data:
    return reshuffled(load(name), seed).to(device, getattr(torch, dtype))


@once_per_run
def search(case: Case, settings: Settings) -> list[float]:
    """Return the fields of an arm's Search under the tuned protocol: the same search for every arm, once a run."""
    data = load_for(case)
    return list(
        search_learning_rate(
            lambda seed: model_of(case._replace(seed=seed)),
            data,
            settings,
            rates=grids.LEARNING_RATES,
            seeds=grids.SEARCH_SEEDS,
            reach=grids.RATES_IN_REACH,
            update=UPDATES[case.update],
        )
    )
