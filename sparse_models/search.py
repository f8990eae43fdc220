"""The one search for a learning rate, the same for every arm."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from sparse_models.data import Data
from sparse_models.errors import DivergedError
from sparse_models.models import MLP
from sparse_models.training import Quality, Settings, evaluate, train
from sparse_models.updates import Update


class Search(NamedTuple):
    """A search's choice and its cost: the number of trainings and their CPU seconds."""

    learning_rate: float
    trainings: int
    seconds: float


def search_learning_rate(
    build: Callable[[int], MLP],
    data: Data,
    settings: Settings,
    *,
    rates: Sequence[float],
    seeds: Sequence[int],
    update: Update | None = None,
    reach: Sequence[float] = (),
) -> Search:
    """Return the best of `rates` by successive halving (Jamieson and Talwalkar 2016): each seed halves those left.

    While the best is the lowest or the highest of those tried, the next one beyond it of `reach` is tried too, with all seeds:
    no choice lies on an edge but where `reach` ends. Models are made by `build(seed)`. Best is the highest validation
    accuracy, averaged over the seeds so far; the lower loss decides ties, and a rate that diverges comes last. One seed is not
    enough: a rate at the edge of stability may be lucky once.
    """
    start = time.process_time()
    trainings = 0
    tried = list(rates)

    def judged(rate: float, seed: int) -> tuple[float, float]:
        nonlocal trainings
        trainings += 1
        quality = _try_rate(build(seed), data, settings._replace(learning_rate=rate), seed, update)
        return -quality.accuracy, quality.loss

    def added(scores: Iterable[tuple[float, float]]) -> tuple[float, float]:
        accuracies, losses = zip(*scores, strict=True)
        return sum(accuracies), sum(losses)

    scores = dict.fromkeys(rates, (0.0, 0.0))
    for seed in seeds:
        scores = {rate: added([score, judged(rate, seed)]) for rate, score in scores.items()}
        ranked = sorted(scores, key=scores.__getitem__)
        scores = {rate: scores[rate] for rate in ranked[: -(-len(ranked) // 2)]}
    best = next(iter(scores))
    while (beyond := _beyond(best, tried, reach)) is not None:
        tried.append(beyond)
        scores[beyond] = added(judged(beyond, seed) for seed in seeds)
        best = min(best, beyond, key=scores.__getitem__)
    return Search(best, trainings, time.process_time() - start)


def _beyond(best: float, tried: Sequence[float], reach: Sequence[float]) -> float | None:
    """Return the rate of `reach` next to the best on a side on which none was tried, None where it lies inside."""
    above = [rate for rate in reach if rate > best] if best == max(tried) else []
    below = [rate for rate in reach if rate < best] if best == min(tried) else []
    return min(above, default=max(below, default=None))


def _try_rate(model: MLP, data: Data, settings: Settings, seed: int, update: Update | None) -> Quality:
    try:
        for losses in train(model, data.train, settings, seed, update):
            if not losses.isfinite().all():
                raise DivergedError(f"expected finite losses, got {losses[-1]}")
    except DivergedError:
        return Quality(math.inf, 0.0)
    return evaluate(model, data.validation)
