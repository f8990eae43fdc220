"""The seed's experiment: one MLP trained sparse, narrow and dense, epoch by epoch beside dense at its best."""

from typing import NamedTuple

import torch

from bench.cases import Case
from bench.engine.pairing import Plan, Racer
from bench.engine.timed import REPLAYED_AS
from bench.grids import is_gpu
from bench.runs.row import Facts
from bench.works.gates import pass_gate
from bench.works.problems import layout_of
from bench.works.trained.dense_training import DenseTraining, pass_dense_gate, variant_of
from bench.works.trained.experiment import NO_SEARCH, dense_arm, find_rate, load_for, model_of, search, settings_of
from bench.works.trained.short_training import train_shortly, training_peak_bytes
from bench.works.trained.training_flops import training_flops
from sparse_models.costs import counted_training_flops, executed_flops, size
from sparse_models.data import Data
from sparse_models.errors import DivergedError
from sparse_models.search import Search
from sparse_models.training import Quality, Settings, evaluate, train
from sparse_models.updates import UPDATES

prepare = find_rate  # see bench.engine.preparing
GOING_ON = ("sparse", "narrow")
BEYOND = 9  # times as many epochs as dense has, at most, for an arm that goes on until dense's time is over


def bench_train(case: Case, race: Racer) -> Facts:
    """One training of one arm and of dense beside it; a round is an epoch.

    An arm other than dense goes on until dense's time is over; what is told of its end is of as many epochs as dense has.
    """
    pass_gate(case, case.layer, layout_of(case, case.layer, "batch-major"))
    data, settings = load_for(case), settings_of(case)
    dense_case = dense_arm(case)
    if race.once:
        settings = settings._replace(epochs=1)
    for one in (case, dense_case):
        if one.model != "sparse":
            pass_dense_gate(one, model_of(one), data.train)
    beyond = 0 if race.once or case.model not in GOING_ON else BEYOND * settings.epochs
    own, dense = Arm(case, data, settings, beyond), Arm(dense_case, data, settings)
    for arm in (own, dense):
        arm.warm_up()

    def look() -> None:
        for arm in (own, dense):
            arm.look()

    race(own.epoch, dense.epoch, case.device, Plan(1, 1, pairs=settings.epochs, after=look, beyond=beyond))
    launched = {**launched_as("", own), **launched_as("dense_", dense)} if is_gpu(case.device) else {}
    peaks: Facts = {}
    if not race.once:  # apart from all timing
        own_peak, dense_peak = (training_peak_bytes(one, settings) for one in (case, dense_case))
        peaks = {"training_peak_bytes": own_peak, "dense_training_peak_bytes": dense_peak}
    layers = list(own.model)
    total = size(layers)
    rule, samples = UPDATES[case.update], len(data.train.labels)
    own_end, dense_end = own.end, dense.end
    dense_weights = size(list(dense.model)).weights
    return {
        **total._asdict(),
        **peaks,
        **launched,
        "shape": "x".join(map(str, (layers[0].in_features, *(layer.out_features for layer in layers)))),
        "epochs": settings.epochs,
        "optimizer": settings.optimizer,
        "update_interval": settings.update_interval if rule.moves or rule.resizes else 0,
        "learning_rate": own.settings.learning_rate,
        "dense_learning_rate": dense.settings.learning_rate,
        "search_trainings": own.search.trainings,
        "search_seconds": own.search.seconds,
        "final_loss": own_end.loss,
        "test_accuracy": own_end.test.accuracy,
        "test_loss": own_end.test.loss,
        "test_samples": len(data.test.labels),
        "dense_final_loss": dense_end.loss,
        "dense_test_accuracy": dense_end.test.accuracy,
        "dense_test_loss": dense_end.test.loss,
        "variant": "eager" if case.model == "sparse" else variant_of(case),
        "dense_variant": variant_of(dense_case),
        "epoch_accuracies": own.accuracies[: settings.epochs],
        "epoch_test_accuracies": own.test_accuracies[: settings.epochs],
        "later_epoch_accuracies": own.accuracies[settings.epochs :],
        "later_epoch_test_accuracies": own.test_accuracies[settings.epochs :],
        "dense_epoch_accuracies": dense.accuracies,
        "dense_epoch_test_accuracies": dense.test_accuracies,
        **training_flops(own.model, rule, samples, settings)._asdict(),
        "dense_flops_counted": counted_training_flops(
            dense_weights, dense_weights, samples * settings.epochs, settings.update_interval, needs_gradient=False
        ),
        "dense_flops_executed": executed_flops(list(dense.model), samples * settings.epochs, "step", input_gradient=False),
    }


def to_prepare(case: Case) -> list[Case]:
    """Return the arms of a case whose learning rates are searched for: its own and dense's."""
    return [arm._replace(seed=0) for arm in (dense_arm(case), case)] if case.protocol == "tuned" else []


def launched_as(arm: str, trained: "Arm") -> Facts:
    """Return how a GPU is given the steps of an arm, and why its host launches them one by one where it does."""
    reason = {f"{arm}not_captured": one for one in trained.not_captured}
    return {f"{arm}launched": "by the host" if reason else REPLAYED_AS, **reason}


class Arm:
    """One arm of the experiment, trained an epoch at a time."""

    def __init__(self, case: Case, data: Data, settings: Settings, beyond: int = 0) -> None:
        """Build the arm's model from the weights that all arms of a seed share, and find its learning rate.

        It has so many epochs `beyond` those of the settings.
        """
        self.case, self.data = case, data
        self.search = NO_SEARCH
        if case.protocol == "tuned":
            self.search = Search(*search(case._replace(seed=0), settings))  # type: ignore[arg-type]  # as JSON returns it
        self.settings = settings._replace(learning_rate=self.search.learning_rate)
        self.model = model_of(case)
        self.accuracies: list[float] = []  # on the validation split, after each epoch
        self.test_accuracies: list[float] = []  # for whoever reads a row, at an epoch that the validation split has chosen
        self.not_captured: list[str] = []  # the reason, where no CUDA graph holds its steps
        self.done, self.most = 0, settings.epochs + beyond  # epochs
        self._end: End | None = None
        rule, told = UPDATES[case.update], self.not_captured
        self._epochs = train(self.model, self.data.train, self.settings, case.seed, rule, told=told, beyond=beyond)

    def warm_up(self) -> None:
        """Train a throwaway model of the same arm for a few steps, so that no epoch has anything to compile or to load.

        What PyTorch compiles it compiles for the model itself.
        """
        train_shortly(self.case, model_of(self.case), self.data.train, self.settings)
        if isinstance(self.model, DenseTraining):
            self.model.load(self.data.train)

    def epoch(self) -> None:
        """Train for one epoch; raises RuntimeError when there is none left: a training cannot be repeated as a work can.

        Raises DivergedError where a loss is no finite number: there is nothing to tell of such an arm, and others go on.
        """
        losses = next(self._epochs, None)
        if losses is None:
            raise RuntimeError(
                f"{self.case.model} {self.case.layer}: expected at most {self.most} epochs, got a call for one "
                "more; time a training only as often as it has epochs"
            )
        if not losses.isfinite().all():
            found = float(losses[~losses.isfinite()][0])
            raise DivergedError(
                f"{self.case.model} {self.case.layer}: expected finite losses, got {found}: at the learning rate "
                f"{self.settings.learning_rate:g} this arm diverges; try --protocol tuned"
            )
        self.done += 1

    @torch.no_grad()
    def look(self) -> None:
        """Note how accurate the model is by now; what it is on the test split is written down, and chooses nothing."""
        if self.done == len(self.accuracies):  # it is the other's turn
            return
        splits = (self.data.validation, self.data.test)  # in one call: it is made after every epoch, untimed
        outputs = self.model(torch.cat([one.inputs for one in splits])).split([len(one.labels) for one in splits])
        for told, output, one in zip((self.accuracies, self.test_accuracies), outputs, splits, strict=True):
            told.append(float((output.argmax(1) == one.labels).double().mean()))
        if self.done == self.settings.epochs:
            self._end = self._look_at_end()

    @property
    def end(self) -> "End":
        """What there is to tell of the model after the epochs of the settings; before them, of the model as it is."""
        return self._end or self._look_at_end()

    def _look_at_end(self) -> "End":
        return End(evaluate(self.model, self.data.train).loss, evaluate(self.model, self.data.test))


class End(NamedTuple):
    """The loss on the training samples, and the quality on those of the test."""

    loss: float
    test: Quality
