"""A training's case in, what is trained by it out: the network of its arm, its data, its settings, its learning rate."""

from functools import lru_cache

import torch

from bench import grids
from bench.cases import Case
from bench.grids import is_gpu, stored
from bench.shapes import Shape
from bench.works.once_per_run import by_one_thread, kept, once_per_run
from bench.works.trained.dense_training import trained_as
from sparse_models.costs import size
from sparse_models.data import Data, reshuffled
from sparse_models.loading import load
from sparse_models.models import MLP, convert, dense_mlp, draw, narrow_mlp, sparse_mlp
from sparse_models.search import Search, search_learning_rate
from sparse_models.training import Settings
from sparse_models.updates import UPDATES

NO_SEARCH = Search(grids.SEED_LEARNING_RATE, 0, 0.0)


def dense_arm(case: Case) -> Case:
    """Return the case of dense's own training, beside which a case's arm is trained."""
    return case._replace(model="dense", layer="dense", update="static", sparsity=0.0, distribution=grids.DISTRIBUTION)


def model_of(case: Case, *, is_eager: bool = False) -> MLP:
    """Return the untrained model of a case's arm; `tuned` scales the sparse layers' weights by 1 / sqrt(density).

    Dense steps are as `trained_as` has them, or eager. A rule that chooses the first weights by their gradient does so by the
    first batch of the training samples.
    """
    shape = Shape.parse(case.shape)
    generator = torch.Generator().manual_seed(case.seed)
    drawn = convert(draw(shape.sizes, generator), case.device, getattr(torch, stored(case.dtype)))
    if case.model == "narrow":
        alike = sparse_mlp(drawn, "masked", case.sparsity, generator, distribution=case.distribution)
        return trained_as(case, narrow_mlp(drawn, size(list(alike)).nnz), is_eager=is_eager)
    if case.model != "sparse":
        return trained_as(case, dense_mlp(drawn), is_eager=is_eager)
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


def find_rate(case: Case) -> None:
    """Find the learning rate of a training."""
    search(case, settings_of(case))


@once_per_run
def search(case: Case, settings: Settings) -> list[float]:
    """Return the fields of an arm's Search under the tuned protocol: the same search for every arm, once a run.

    On a CPU it finds the same rate wherever and whenever it is made, and is kept for later runs, with the seconds it took then.
    """
    if is_gpu(case.device):
        return _searched(case, settings)
    return kept(f"search {case} {settings}", case.data, lambda: _searched(case, settings))


@by_one_thread()
def _searched(case: Case, settings: Settings) -> list[float]:
    """Search by one thread, and by eager steps, as whether compiled ones are faster may not be known yet."""
    data = load_for(case)
    return list(
        search_learning_rate(
            lambda seed: model_of(case._replace(seed=seed), is_eager=True),
            data,
            settings,
            rates=grids.LEARNING_RATES,
            seeds=grids.SEARCH_SEEDS,
            reach=grids.RATES_IN_REACH,
            update=UPDATES[case.update],
        )
    )
