"""SRigL, RigL with constant fan-in (Lasby et al. 2024, arXiv:2305.02299): neurons that hardly matter lose all their weights.

Scores and schedule are RigL's, of this package: what is dropped may be grown again in the same step.
"""

import math

import torch
from torch import Tensor

from sparse_models.errors import InputError
from sparse_models.kernels.asynchronous import is_captured
from sparse_models.masks import FAN_IN, Pattern, count_kept, top_k_mask
from sparse_models.masks.regrow import prune_and_regrow
from sparse_models.masks.units import ROW, highest_in_groups
from sparse_models.updates._rule import Update, cosine, register_update
from sparse_models.updates._scores import gradient_magnitude, magnitude

LEAST_SALIENT = 0.3  # of a neuron's weights, or it is ablated: the paper's gamma_sal, but for transformers, where it is 0.95


def ablate_and_regrow(
    mask: Tensor,
    keep_score: Tensor,
    grow_score: Tensor,
    drop_fraction: float,
    *,
    pattern: Pattern = FAN_IN,  # noqa: ARG001  # the only one
    regrow_dropped: bool = True,
    kept: int | None = None,
) -> Tensor:
    """Return a mask [out, in] of constant fan-in about as sparse as `mask`, of which a `drop_fraction` was chosen anew.

    A weight is salient where RigL would keep it, were it free of the pattern. Rows with fewer salient weights than
    LEAST_SALIENT of their fan-in k are ablated for good. Of the others' weights those survive that do in RigL; then each row
    grows by highest `grow_score` until it has the number kept before over the number of rows left, to the nearest whole number
    and no more than it has columns: in all, no more than half a weight for each row is gained or lost, but for full rows.
    Raises InputError as `prune_and_regrow` does, and while a CUDA graph is captured, where no number may change.
    """
    if is_captured(mask):
        raise InputError(
            "srigl: expected no CUDA graph to be captured, as the number of weights may change; move masks outside"
        )
    kept = int(mask.sum()) if kept is None else kept
    active = mask.any(1, keepdim=True)
    free = grow_score.masked_fill(~active, -math.inf)
    salient = prune_and_regrow(mask, keep_score, free, drop_fraction, regrow_dropped=regrow_dropped, kept=kept)
    if kept == 0:
        return salient
    fan_in = mask.sum(1).max()
    active &= salient.sum(1, keepdim=True) >= LEAST_SALIENT * fan_in
    target = min(mask.shape[1], round(kept / int(active.sum())))
    survivors = top_k_mask(keep_score, count_kept(kept, drop_fraction), among=mask) & active
    missing = (target - survivors.sum(1, keepdim=True)) * active
    # Without room in its row, what was dropped comes back after all.
    first = (~survivors).to(torch.int8) - survivors.to(torch.int8) - (mask & ~survivors & (not regrow_dropped)).to(torch.int8)
    return survivors | highest_in_groups(grow_score, missing, ROW, first)


SRIGL = register_update(
    Update(
        "srigl",
        magnitude,
        gradient_magnitude,
        cosine(0.3, until=0.75),
        gradient="every",
        choose=ablate_and_regrow,
        only=FAN_IN,
        conserves=False,
    )
)
