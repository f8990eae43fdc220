"""What a chain of layers with ReLU between them puts out, in one call.

Few tiles: threads share out the rows of one layer after the other, and wait for one another in between; of little work one
thread does all. Many tiles: each goes through all layers by itself. Activations are packed tiles from end to end.
"""

from array import array
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from sparse_models.kernels.cpu._arithmetic import name_of
from sparse_models.kernels.cpu._compile import kernel
from sparse_models.kernels.cpu._emit import CACHE_LINE, TICKETS, Emitter
from sparse_models.kernels.cpu._pass import Layer, emit_outputs
from sparse_models.kernels.cpu._team import passed, run_on, threads_for
from sparse_models.kernels.cpu._tile import Piece, Sums, emitter_for, of_bias
from sparse_models.kernels.cpu.chain._cut import Cut
from sparse_models.kernels.cpu.chain._phases import Phases
from sparse_models.kernels.cpu.chain.by_rows import default_of
from sparse_models.kernels.cpu.csr._form import ARRAYS, NUMBERS, CsrForm
from sparse_models.kernels.cpu.transpose import take_in
from sparse_models.kernels.link import Link
from sparse_models.kernels.structure import Structure
from sparse_models.kernels.variant import Variant

SHARES_PER_THREAD = 4  # of a layer's rows
FIRST, MATRIX = 8, ARRAYS + NUMBERS  # arguments: those before the layers', those of a matrix
PER_LAYER = MATRIX + 4
BESIDE = 2  # vectors whose multiply-adds take as long as what a non-zero costs beside them


class Output:
    """The output of a chain for so many samples, with all that is known before it."""

    def __init__(self, links: Sequence[Link], batch: int, *, is_turned: bool, variant: Variant | None = None) -> None:
        """Hold it for x [batch, in] that is feature-major, if turned, or batch-major."""
        sizes = [links[0].rows.columns, *(link.rows.rows for link in links)]
        variant, dtype = variant or default_of(links), links[0].values.dtype
        cut = Cut.of(batch, dtype, variant)
        weights = sum(link.values.numel() for link in links) * (cut.chunks + BESIDE)
        self.team = min(variant.threads, threads_for(weights))
        self.result_shape, self.links = (sizes[-1], batch), links
        by_tiles = cut.tiles % self.team == 0 or cut.tiles > SHARES_PER_THREAD * self.team
        scratches = self.team if by_tiles else cut.tiles
        scratch_bytes = sum(sizes) * cut.chunks * variant.vector_bytes + CACHE_LINE
        self.scratch_bytes = scratches * scratch_bytes
        shares = 1 if by_tiles else SHARES_PER_THREAD * self.team
        self.held: list[Tensor | int] = [scratch_bytes, batch, cut.tiles, sizes[0], shares]
        structures = [cast("Structure", link.rows) for link in links]
        forms = tuple(CsrForm.of(structure.sizes, cut.chunks, variant) for structure in structures)
        for link, structure, form in zip(links, structures, forms, strict=True):
            self.held += [*form.arguments(structure, cut.chunks, variant), link.values, *of_bias(link.bias), structure.rows]
        self.arguments = passed([0, 0, 0, *self.held, *[0] * (len(links) + 1)])
        self.function = _output(name_of(dtype), cut.chunks, variant.vector_bytes, forms, is_turned=is_turned, by_tiles=by_tiles)

    def of(self, x: Tensor) -> Tensor:
        """Return what the chain makes of x [batch, in]: [batch, out], feature-major."""
        # Memory of its own for each call: several threads may multiply at a time.
        result, scratch = x.new_empty(self.result_shape), torch.empty(self.scratch_bytes, dtype=torch.uint8)
        arguments = self.arguments[:]
        arguments[TICKETS : TICKETS + 3] = array("q", [tensor.data_ptr() for tensor in (x, result, scratch)])
        run_on(self.function, arguments, self.team)
        return result.t()


@kernel
def _output(dtype: str, chunks: int, vector_bytes: int, forms: Sequence[CsrForm], *, is_turned: bool, by_tiles: bool) -> int:
    """Return the address of the kernel of `Output` for tiles of so many vectors."""
    emit = emitter_for(dtype, vector_bytes)
    chain = _Chain(emit, chunks, forms, is_turned=is_turned)
    if by_tiles:
        own = emit.own_part(chain.scratch, chain.scratch_bytes)
        with emit.tasks(chain.tiles) as tile:
            for number in range(len(forms) + 1):
                chain.do(number, tile, emit.constant(0), own)
        return emit.compiled()
    phases = Phases(emit, FIRST + PER_LAYER * len(forms))
    for number in range(len(forms) + 1):
        with phases.tasks(emit.times(chain.tiles, chain.shares)) as task:
            tile, share = emit.divided(task, chain.shares)
            chain.do(number, tile, share, emit.aligned(emit.add(chain.scratch, emit.times(tile, chain.scratch_bytes))))
    return emit.compiled()


class _Chain:
    """A chain in the making: what is done of it, a share of a layer's rows in a tile at a time."""

    def __init__(self, emit: Emitter, chunks: int, forms: Sequence[CsrForm], *, is_turned: bool) -> None:
        """Emit the loads of the arguments."""
        self.emit, self.chunks, self.is_turned = emit, chunks, is_turned
        self.x, self.result, self.scratch, self.scratch_bytes, self.batch, self.tiles, self.inputs, self.shares = (
            emit.argument(place) for place in range(FIRST)
        )
        self.layers, self.offsets, at = list[Layer](), list[Any](), emit.constant(0)
        rows = self.inputs
        for number, form in enumerate(forms):
            own = [emit.argument(FIRST + PER_LAYER * number + place) for place in range(PER_LAYER)]
            self.offsets.append(at)  # of the layer's input in a tile
            at = emit.add(at, emit.times(rows, chunks * emit.vector_bytes))
            arrays, (values, bias, bias_step, rows) = own[:MATRIX], own[MATRIX:]
            self.layers.append(Layer(form, form, arrays, values, bias, bias_step, arrays, values, rows, rows, rows))
        self.offsets.append(at)  # where sums of the last layer are kept

    def do(self, number: int, tile: Any, share: Any, own: Any) -> None:
        """Emit a share of a tile's packing, for number 0, or of a layer's outputs, counted from 1 on."""
        if number == 0:
            self._pack(tile, share, own)
            return
        emit, layer, before = self.emit, self.layers[number - 1], self.emit.add(own, self.offsets[number - 1])
        rows = emit.share(layer.rows, share, self.shares)
        if number < len(self.layers):
            emit_outputs(emit, layer, (before, emit.add(own, self.offsets[number])), rows, self.chunks, relu=True)
            return
        piece = Piece(emit, tile, self.chunks, self.batch)
        matrix = layer.form.matrix(layer.arrays, layer.values)
        begin, kept = partial(layer.biased, emit, chunks=self.chunks), emit.add(own, self.offsets[number])

        def finish(row: Any, totals: list[Any]) -> None:
            piece.write(totals, piece.of(self.result, row))

        matrix.products(emit, rows, before, Sums(begin, finish, kept, self.chunks))

    def _pack(self, tile: Any, share: Any, own: Any) -> None:
        emit = self.emit
        lanes = emit.share(emit.over(self.inputs, emit.lanes), share, self.shares)
        start, end = (emit.least(emit.times(part, emit.lanes), self.inputs) for part in lanes)
        if self.is_turned:
            at = emit.add(own, emit.times(start, self.chunks * emit.vector_bytes))
            Piece(emit, tile, self.chunks, self.batch).pack(self.x, start, end, at)
        else:
            samples = emit.times(tile, self.chunks * emit.lanes), self.batch
            take_in(emit, self.x, samples, self.inputs, own, self.chunks, (start, end))
