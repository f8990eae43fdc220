"""The inputs of layers in panels of columns, as products with them read them: so many vectors, sample by sample."""

from typing import Any

import torch
from torch import Tensor

from sparse_models.kernels.cpu._arithmetic import name_of
from sparse_models.kernels.cpu._compile import kernel, vector_bytes
from sparse_models.kernels.cpu._emit import Emitter
from sparse_models.kernels.cpu._team import run, threads
from sparse_models.kernels.cpu._tile import emitter_for
from sparse_models.kernels.cpu.chain._factors import Factors
from sparse_models.kernels.cpu.moves._table import COLUMNS, Entries
from sparse_models.kernels.cpu.moves.product import ADDRESSES, padded, vectors

SHARES = 8  # of a layer


def room_for(factors: Factors) -> int:
    """Return how many numbers the packed inputs of a layer are, in tiles that are all alike."""
    first = factors.inputs[0]
    return padded(len(first), first.element_size()) * first.shape[1] * len(factors.inputs)


def pack(rows: Tensor, dtype: torch.dtype) -> None:
    """Pack the inputs of layers, whose sources in the table are factors and room for as many numbers as `room_for` tells."""
    run(_pack(name_of(dtype)), (rows, len(rows)), threads())


@kernel
def _pack(dtype: str) -> int:
    """Return the address of the kernel of `pack`: panels of columns [samples, columns of a panel], those of a tile in turn."""
    emit = emitter_for(dtype, vector_bytes())
    rows, layers = emit.argument(0), emit.argument(1)
    with emit.tasks(emit.times(layers, SHARES)) as task:
        layer, share = emit.divided(task, emit.constant(SHARES))
        own = Entries(emit, COLUMNS, rows, layer)
        table, tiles, samples, room = (own.of[f"source_{place}"] for place in range(4))
        panels = emit.over(own.columns, vectors() * emit.lanes)
        start, end = emit.share(emit.times(tiles, panels), share, emit.constant(SHARES))
        with emit.loop(start, end) as place:
            tile, panel = emit.divided(place.place, panels)
            inputs = emit.index(table, emit.add(emit.times(tile, ADDRESSES), 1), 8)
            target = emit.add(room, emit.times(emit.times(place.place, samples), vectors() * emit.vector_bytes))
            _pack_panel(emit, (inputs, own.columns, samples), panel, target)
    return emit.compiled()


def _pack_panel(emit: Emitter, tile: tuple[Any, Any, Any], panel: Any, target: Any) -> None:
    """Emit the packing of a panel of a tile [columns, samples]."""
    inputs, columns, samples = tile
    lanes, count = emit.lanes, vectors()
    for vector in range(count):
        own = emit.add(emit.times(panel, count * lanes), vector * lanes)
        rows = []
        for lane in range(lanes):  # beyond the last column it is taken again, and never looked at
            column = emit.least(emit.add(own, lane), emit.add(columns, -1))
            rows.append(emit.add(inputs, emit.times(emit.times(column, samples), emit.width)))
        with emit.loop(emit.constant(0), samples, lanes) as sample:
            offset = emit.times(sample.place, emit.width)
            square = emit.transposed([emit.load(emit.vector, emit.add(row, offset)) for row in rows])
            at = emit.add(target, emit.times(sample.place, count * emit.vector_bytes), vector * emit.vector_bytes)
            for number, column in enumerate(square):
                emit.store(column, emit.add(at, number * count * emit.vector_bytes))
