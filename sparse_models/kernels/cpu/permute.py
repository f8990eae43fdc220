"""Values in another order: PyTorch's own gather runs on one thread."""

from typing import Any

from torch import Tensor

from sparse_models.kernels.cpu._arithmetic import name_of
from sparse_models.kernels.cpu._compile import kernel, vector_bytes
from sparse_models.kernels.cpu._emit import SMALL_BYTES, Emitter
from sparse_models.kernels.cpu._team import run, threads
from sparse_models.kernels.cpu._tile import emitter_for

LEAST = 2**14  # numbers that are worth a team


def permuted(values: Tensor, order: Tensor) -> Tensor:
    """Return values[order], for values and 32-bit places of any number, contiguous: what index_select means."""
    if len(order) < LEAST or values.is_cuda:
        return values.index_select(0, order)
    result = values.new_empty(len(order))
    team = threads()
    run(_gathered(name_of(values.dtype)), (values, order, result, len(order), team), team)
    return result


@kernel
def _gathered(dtype: str) -> int:
    """Return the address of a kernel that gathers, a part of the places for each thread."""
    emit = emitter_for(dtype, vector_bytes())
    values, order, result, count, parts = (emit.argument(place) for place in range(5))
    with emit.tasks(parts) as part:
        gather(emit, values, order, result, emit.share(count, part, parts))
    return emit.compiled()


def gather(emit: Emitter, values: Any, order: Any, result: Any, places: tuple[Any, Any]) -> None:
    """Emit the gathering of values, by their 32-bit places, from one place of the result to below another."""
    lanes, (start, end) = SMALL_BYTES // emit.width, places
    whole = emit.add(start, emit.builder.and_(emit.builder.sub(end, start), emit.constant(-lanes)))
    with emit.loop(start, whole, lanes) as group:
        numbers = emit.gathered(values, emit.indices(order, group.place, lanes, 4))
        emit.store(numbers, emit.add(result, emit.times(group.place, emit.width)))
    with emit.loop(whole, end) as one:
        number = emit.gathered(values, [emit.index(order, one.place)])
        emit.store(number, emit.add(result, emit.times(one.place, emit.width)))


def scatter(emit: Emitter, values: Any, order: Any, result: Any, count: Any) -> None:
    """Emit the scattering of so many values, each to its 32-bit place in the result: what undoes a gathering in that order."""
    lanes = SMALL_BYTES // emit.width
    whole = emit.builder.and_(count, emit.constant(-lanes))

    def put(first: Any, places: list[Any]) -> None:
        for number, place in enumerate(places):
            value = emit.load(emit.number, emit.add(values, emit.times(emit.add(first, number), emit.width)))
            emit.store(value, emit.add(result, emit.times(place, emit.width)))

    with emit.loop(emit.constant(0), whole, lanes) as group:
        put(group.place, emit.indices(order, group.place, lanes, 4))
    with emit.loop(whole, count) as one:
        put(one.place, [emit.index(order, one.place)])
