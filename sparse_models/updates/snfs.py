"""SNFS, sparse momentum (Dettmers and Zettlemoyer 2019, arXiv:1907.04840): weights go where the momentum is.

Each layer drops its smallest weights. What all have dropped is shared out by the mean |momentum| of the layers' weights, and
each grows where that is largest. The momentum is an average over steps of the gradient of every weight, so that each step
computes all of it: in time, this is no sparse training. Drops 0.5 / 2 (1 + cos(pi t)), as the authors' code.
"""

from collections.abc import Sequence

from torch import Tensor

from sparse_models.masks import UNSTRUCTURED, count_kept
from sparse_models.updates._rule import Update, cosine, register_update
from sparse_models.updates._scores import gradient_magnitude, magnitude


def by_mean_momentum(masks: Sequence[Tensor], momenta: Sequence[Tensor], drop_fraction: float) -> list[int]:
    """Return how many weights each layer grows, from masks and momenta [out, in]: all that were dropped, by mean |momentum|."""
    kept = [int(mask.sum()) for mask in masks]
    survivors = [count_kept(number, drop_fraction) for number in kept]
    means = [float(momentum.abs()[mask].mean()) if mask.any() else 0.0 for mask, momentum in zip(masks, momenta, strict=True)]
    rooms = [mask.numel() - number for mask, number in zip(masks, survivors, strict=True)]
    return apportioned(sum(kept) - sum(survivors), means, rooms)


def apportioned(total: int, weights: Sequence[float], rooms: Sequence[int]) -> list[int]:
    """Return whole numbers in proportion to `weights` that add up to `total`, none larger than its room.

    What has no room in one is shared out over the others, likewise; the largest remainders are rounded up. With weights of 0
    alone, all are alike. The rooms together must hold the total.
    """
    given, free = [0] * len(rooms), set(range(len(rooms)))
    while free:
        left = total - sum(given)
        whole = sum(weights[one] for one in free)
        shares = {one: left * (weights[one] / whole if whole > 0 else 1 / len(free)) for one in free}
        full = {one for one in free if shares[one] >= rooms[one]}
        if not full:
            for one, share in shares.items():
                given[one] = int(share)
            by_remainder = sorted(free, key=lambda one: (int(shares[one]) - shares[one], one))
            for one in by_remainder[: total - sum(given)]:
                given[one] += 1
            break
        for one in full:
            given[one] = rooms[one]
        free -= full
    return given


SNFS = register_update(
    Update(
        "snfs",
        magnitude,
        gradient_magnitude,
        cosine(0.5, until=1.0),
        gradient="averaged",
        share=by_mean_momentum,
        only=UNSTRUCTURED,
        conserves=False,
        is_default=False,
    )
)
