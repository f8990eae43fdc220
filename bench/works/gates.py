"""A case may only be timed once its layer agrees with the definition of a sparse layer at every size of its shape."""

from collections.abc import Callable
from functools import lru_cache

from bench.cases import Case
from bench.grids import is_gpu
from bench.works.once_per_run import find_once, once_per_run
from bench.works.problems import Key, as_layout, build, keys, labels_of, problem
from sparse_models.errors import GateError
from sparse_models.layers import LAYERS
from sparse_models.masks import Pattern
from sparse_models.testing import Definition, define, gate, gate_chain

# Of the batch, if it is larger: the definition is computed in float64, in several passes over memory. Not on a GPU, where that
# is quick, and where another kernel is compiled for another batch: what is timed is what was gated.
GATE_ROWS = 1024


@lru_cache(maxsize=8)
def _definition(pattern: Pattern, key: Key) -> Definition:
    return define(problem(pattern, key))


@once_per_run
def _gate_failure(layer: str, key: Key, layout: str, threads: int) -> str | None:  # noqa: ARG001  # torch is set to them
    """Return why the layer fails its gate, or None if it passes: found out once a run, whatever the operation."""
    pattern = LAYERS[layer].pattern
    drawn = problem(pattern, key)
    try:
        gate(LAYERS[layer], drawn._replace(x=as_layout(drawn.x, layout)), _definition(pattern, key))
    except GateError as error:
        return str(error)
    return None


@once_per_run
def _chain_failure(layer: str, keys: list[Key], threads: int, *, fused: bool) -> str | None:  # noqa: ARG001  # torch is set to them
    """Return why what the layers do together, or their fused step, fails its gate; None if it passes or there is none."""
    parts = [problem(LAYERS[layer].pattern, key) for key in keys]
    try:
        gate_chain(list(build(layer, parts)), parts[0].x, labels_of(parts), fused=fused)
    except GateError as error:
        return str(error)
    return None


def pass_once(what: str, check: Callable[[], object]) -> None:
    """Raise GateError unless a gate of something other than layers, which is called once a run by this name, lets it pass."""

    def failure() -> str | None:
        try:
            check()
        except GateError as error:
            return str(error)
        return None

    told = find_once(f"gate {what}", failure)
    if told is not None:
        raise GateError(told)


def pass_gate(case: Case, layer: str, layout: str) -> None:
    """Raise GateError, before anything is timed, unless `layer` agrees with its definition at every size of its shape."""
    rows = None if is_gpu(case.device) else GATE_ROWS
    network = keys(case, layer, rows)
    for key in network:
        failure = _gate_failure(layer, key, layout, case.threads)
        if failure is not None:
            raise GateError(failure)
    fused = case.op in ("training_step", "train")
    if fused or len(network) > 1:
        failure = _chain_failure(layer, network, case.threads, fused=fused)
        if failure is not None:
            raise GateError(failure)
