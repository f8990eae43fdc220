"""A training's case in, one of a few steps out that has all that a whole one has, and the most memory that it holds at once."""

from bench import grids
from bench.cases import Case
from bench.works.once_per_run import once_per_run
from bench.works.peak_memory import peak_bytes
from bench.works.trained.dense_training import DenseTraining
from bench.works.trained.experiment import load_for, model_of
from sparse_models.costs import size
from sparse_models.data import Split
from sparse_models.models import MLP
from sparse_models.training import Settings, train
from sparse_models.updates import UPDATES

EPOCHS, INTERVAL = 5, 3  # of a step or two each


def train_shortly(case: Case, model: MLP, samples: Split, settings: Settings) -> None:
    """Train a model of a case's arm in place, for a few steps.

    They are steps on a whole batch and on the odd last one of an epoch, the first of all and later ones, each with a mask
    update after it and without.
    """
    whole, odd = divmod(len(samples.labels), settings.batch)
    few = slice(0, min(whole, 1) * settings.batch + odd)
    short = settings._replace(epochs=EPOCHS, update_interval=INTERVAL, learning_rate=grids.SEED_LEARNING_RATE)
    for _ in train(model, Split(*(part[few] for part in samples)), short, case.seed, UPDATES[case.update]):
        pass


def training_peak_bytes(case: Case, settings: Settings) -> int | None:
    """Return the most bytes that a training of a case's arm holds at once; None where a device does not tell.

    They are its weights and their structure, gradients, optimizer state, activations, and what a mask update takes; not the
    samples. What `bench.works.peak_memory` does not see is not in it.
    """
    return _peak(case._replace(seed=0), settings.batch, settings.optimizer)


@once_per_run
def _peak(case: Case, batch: int, optimizer: str) -> int | None:
    samples, models, stored = load_for(case).train, list[MLP](), list[int]()
    settings = Settings(EPOCHS, batch, grids.SEED_LEARNING_RATE, optimizer)

    def prepare() -> None:
        if not models or UPDATES[case.update].resizes:  # which leaves fewer weights than it begins with
            models[:] = [model_of(case)]
            if isinstance(models[0], DenseTraining):
                models[0].load(samples)
        models[0].zero_grad()  # what the run before left
        stored[:] = [size(list(models[0])).bytes_stored]

    peak = peak_bytes(lambda: train_shortly(case, models[0], samples, settings), case.device, prepare)
    return None if peak is None else stored[0] + peak
