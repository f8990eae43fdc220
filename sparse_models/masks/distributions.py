"""How the sparsity of a network is shared out over its layers."""

import math
from collections.abc import Callable, Sequence

from sparse_models.errors import checked
from sparse_models.masks.top_k import check_sparsity
from sparse_models.table import Table


@checked
def uniform(shapes: Sequence[Sequence[int]], sparsity: float) -> list[float]:
    """Return the same sparsity for every layer."""
    return [check_sparsity(sparsity)] * len(shapes)


@checked
def erdos_renyi(shapes: Sequence[Sequence[int]], sparsity: float) -> list[float]:
    """Return sparsities with density proportional to (out + in) / (out * in) (Mocanu et al. 2018).

    `shapes` are weight shapes [out, in, ...]; layers that would pass density 1 are kept whole, the others share the rest.
    """
    return _proportional([sum(shape[:2]) / math.prod(shape[:2]) for shape in shapes], shapes, sparsity)


@checked
def erdos_renyi_kernel(shapes: Sequence[Sequence[int]], sparsity: float) -> list[float]:
    """Return sparsities with density proportional to sum(shape) / prod(shape), kernel sizes included (Evci et al. 2020)."""
    return _proportional([sum(shape) / math.prod(shape) for shape in shapes], shapes, sparsity)


@checked
def first_dense(shapes: Sequence[Sequence[int]], sparsity: float) -> list[float]:
    """Return 0 for the first layer and the same sparsity for all others, as RigL's "uniform" (Evci et al. 2020).

    The network as a whole is less sparse than that, by much where most of its weights are in the first layer.
    """
    return [0.0 if layer == 0 else check_sparsity(sparsity) for layer in range(len(shapes))]


def _proportional(raw: list[float], shapes: Sequence[Sequence[int]], sparsity: float) -> list[float]:
    sizes = [math.prod(shape) for shape in shapes]
    kept = (1 - check_sparsity(sparsity)) * sum(sizes)
    free = set(range(len(sizes)))
    epsilon = 0.0
    while free:
        budget = kept - sum(size for layer, size in enumerate(sizes) if layer not in free)
        epsilon = budget / sum(raw[layer] * sizes[layer] for layer in free)
        # Making one layer whole only raises epsilon for the others, so all that pass density 1 can go at once.
        whole = {layer for layer in free if epsilon * raw[layer] > 1}
        if not whole:
            break
        free -= whole
    return [min(1.0, max(0.0, 1 - epsilon * raw[layer])) if layer in free else 0.0 for layer in range(len(sizes))]


DISTRIBUTIONS: Table[Callable[[Sequence[Sequence[int]], float], list[float]]] = Table("distribution")
DISTRIBUTIONS |= {"uniform": uniform, "er": erdos_renyi, "erk": erdos_renyi_kernel, "first_dense": first_dense}
