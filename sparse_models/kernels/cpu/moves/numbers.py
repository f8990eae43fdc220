"""Random numbers by place: two keys in, a number for each place out, the same in whatever order they are asked for."""

from collections.abc import Sequence
from typing import Any

import torch
from llvmlite import ir
from torch import Tensor

from sparse_models.kernels.cpu._arithmetic import INTEGER
from sparse_models.kernels.cpu._compile import kernel, vector_bytes
from sparse_models.kernels.cpu._emit import Emitter
from sparse_models.kernels.cpu._team import run, threads
from sparse_models.kernels.cpu._tile import emitter_for

BITS = 30  # of a number
LEAST = 2**15  # numbers that are worth a team
# Shifts and multipliers by which a 32-bit integer is mixed (hash-prospector, Wellons 2018, "lowbias32").
MIXED = ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1))


def define_numbers(keys: tuple[int, int], places: Tensor) -> Tensor:
    """Return what `numbers` means, for places in int64: two rounds of mixing, a key before each, and the highest bits."""
    found = places
    for key in keys:
        found = (found + key) & 0xFFFFFFFF
        for shift, factor in MIXED:
            found = ((found ^ (found >> shift)) * factor) & 0xFFFFFFFF
    return (found >> (32 - BITS)).int()


def numbers(keys: tuple[int, int], first: int, result: Tensor) -> Tensor:
    """Fill `result`, int32, contiguous, with the random numbers of places from one on, of BITS bits, and return it."""
    count = result.numel()
    team = threads() if count >= LEAST else 1
    run(_numbers(), (result, count, first, *keys, team), team)
    return result


def drawn_keys(generator: torch.Generator | None) -> tuple[int, int]:
    """Return two keys by a CPU's generator, or by PyTorch's own."""
    one, other = torch.randint(2**32, (2,), generator=generator, device="cpu").tolist()
    return one, other


@kernel
def _numbers() -> int:
    """Return the address of the kernel of `numbers`, a part of the places for each thread."""
    emit = emitter_for("float32", vector_bytes())
    result, count, first, *keys, parts = (emit.argument(place) for place in range(6))
    builder = emit.builder
    with emit.tasks(parts) as part:
        start, end = emit.share(count, part, parts)
        whole = emit.add(start, builder.and_(builder.sub(end, start), emit.constant(-emit.lanes)))
        with emit.loop(start, whole, emit.lanes) as group:
            places = builder.add(emit.integer_splat(emit.add(first, group.place)), emit.counting())
            splats = [emit.integer_splat(key) for key in keys]
            emit.store(mixed(emit, places, splats), emit.add(result, emit.times(group.place, 4)))
        with emit.loop(whole, end) as one:
            places = builder.add(emit.integer_splat(emit.add(first, one.place)), emit.counting())
            vector = mixed(emit, places, [emit.integer_splat(key) for key in keys])
            emit.store(builder.extract_element(vector, ir.Constant(INTEGER, 0)), emit.add(result, emit.times(one.place, 4)))
    return emit.compiled()


def mixed(emit: Emitter, places: Any, keys: Sequence[Any]) -> Any:
    """Return the random numbers of a vector of places, by two keys that are as many vectors."""
    builder, kind = emit.builder, places.type

    def repeated(integer: int) -> Any:
        return ir.Constant(kind, [integer] * emit.lanes)

    for key in keys:
        places = builder.add(places, key)
        for shift, factor in MIXED:
            places = builder.mul(builder.xor(places, builder.lshr(places, repeated(shift))), repeated(factor))
    return builder.lshr(places, repeated(32 - BITS))
