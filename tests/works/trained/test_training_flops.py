"""FLOPs of trainings whose number of weights changes: the sum over all steps of what each needs."""

from itertools import pairwise

import pytest

from bench.works.trained.training_flops import training_flops
from sparse_models.masks import UNSTRUCTURED, count_kept
from sparse_models.models import draw, sparse_mlp
from sparse_models.mutation import updates_due
from sparse_models.training import Settings, steps_of
from sparse_models.updates import UPDATES
from tests.strategies import generator

SIZES, SAMPLES, SETTINGS = (10, 20, 8), 50, Settings(epochs=8, batch=16, learning_rate=0.1, update_interval=3)
FREE = sorted(name for name, rule in UPDATES.items() if rule.fits(UNSTRUCTURED))


@pytest.mark.parametrize("name", FREE)
def test_flops_are_added_up_step_by_step(name: str) -> None:
    rule, final = UPDATES[name], 0.9
    trained = sparse_mlp(draw(SIZES, generator(0)), "tiled", final, generator(0))
    weights = [inputs * outputs for inputs, outputs in pairwise(SIZES)]
    due = updates_due(steps_of(SAMPLES, SETTINGS), SETTINGS.update_interval, rule)
    last = max((step for step, progress in enumerate(due) if progress is not None), default=-1)
    counted, executed, since = 0.0, 0.0, 0.0
    for step, progress in enumerate(due):
        batch = [16, 16, 16, 2][step % 4]
        kept = [count_kept(size, rule.sparsity_at(final, since)) for size in weights]
        dense = 2 * batch * sum(weights)
        looks = (rule.gradient == "every" and progress is not None) or (rule.gradient == "averaged" and step <= last)
        # The first layer has no input gradient to compute.
        executed += 2 * batch * (3 * sum(kept) - kept[0]) + dense * looks
        counted += 2 * batch * 3 * sum(kept)  # and, on average over updates, what looking takes in the literature
        if rule.gradient == "every":
            counted += 2 * batch * (sum(weights) - sum(kept)) / (SETTINGS.update_interval + 1)
        elif rule.gradient == "averaged":
            counted += 2 * batch * (sum(weights) - sum(kept))
        since = since if progress is None else progress
    found = training_flops(trained, rule, SAMPLES, SETTINGS)
    assert found.flops_executed == pytest.approx(executed)
    assert found.flops_counted == pytest.approx(counted)
