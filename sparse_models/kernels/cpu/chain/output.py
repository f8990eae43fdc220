"""What a chain of layers with ReLU between them puts out, in one call.

Few tiles: threads share out the rows of one layer after the other, and wait for one another in between; of little work one
thread does all. Many tiles: each goes through all layers by itself. Activations are packed tiles from end to end.
"""

from array import array
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sparse_models.kernels.cpu._arithmetic import name_of
from sparse_models.kernels.cpu._compile import kernel
from sparse_models.kernels.cpu._emit import CACHE_LINE, Emitter
from sparse_models.kernels.cpu._flow import HEADER
from sparse_models.kernels.cpu._pass import Layer, emit_outputs
from sparse_models.kernels.cpu._team import passed, run_on, threads_for
from sparse_models.kernels.cpu._tile import Piece, Sums, emitter_for, of_bias
from sparse_models.kernels.cpu.chain import by_rows, by_tiles
from sparse_models.kernels.cpu.chain._cut import Cut, Form, form_of, heights_of
from sparse_models.kernels.cpu.transpose import take_in
from sparse_models.kernels.link import Link
from sparse_models.kernels.structure import Structure
from sparse_models.kernels.variant import Variant

SHARES_PER_THREAD = 4  # of a layer's rows
FIRST, AFTER = 9, 5  # arguments: those before the layers', those of a layer beside its matrix
BESIDE = 2  # vectors whose multiply-adds take as long as what a non-zero costs beside them


class Output:
    """The output of a chain for so many samples, with all that is known before it."""

    def __init__(self, links: Sequence[Link], batch: int, *, is_turned: bool, variant: Variant | None = None) -> None:
        """Hold it for x [batch, in] that is feature-major, if turned, or batch-major."""
        heights, is_csr = heights_of(links), isinstance(links[0].rows, Structure)
        variant = variant or (by_rows.default_of(links) if is_csr else by_tiles.default_of(links))
        dtype = links[0].values.dtype
        cut = Cut.of(batch, dtype, variant)
        weights = sum(link.values.numel() for link in links) * (cut.chunks + BESIDE)
        self.team = min(variant.threads, threads_for(weights))
        self.result_shape, self.links = (links[-1].rows.rows, batch), links
        is_by_tiles = cut.tiles % self.team == 0 or cut.tiles > SHARES_PER_THREAD * self.team
        scratches = self.team if is_by_tiles else cut.tiles
        scratch_bytes = sum(heights) * cut.chunks * variant.vector_bytes + CACHE_LINE
        self.scratch_bytes = scratches * scratch_bytes
        shares = 1 if is_by_tiles else SHARES_PER_THREAD * self.team
        self.held: list[Tensor | int] = [scratch_bytes, batch, cut.tiles, links[0].rows.columns, heights[0], shares]
        forms = tuple(form_of(link.rows, cut.chunks, variant) for link in links)
        for link, form, height in zip(links, forms, heights[1:], strict=True):
            structure: Any = link.rows
            self.held += [*form.arguments(structure, cut.chunks, variant), link.values, *of_bias(link.bias)]
            self.held += [structure.rows, height]
        kind = name_of(dtype), cut.chunks, variant.vector_bytes, forms
        self.function = _output(*kind, is_turned=is_turned, is_by_tiles=is_by_tiles)
        self.arguments = passed(self.function, [0, 0, 0, *self.held], self.team)

    def of(self, x: Tensor) -> Tensor:
        """Return what the chain makes of x [batch, in]: [batch, out], feature-major."""
        # Memory of its own for each call: several threads may multiply at a time.
        result, scratch = x.new_empty(self.result_shape), x.new_empty(self.scratch_bytes, dtype=torch.uint8)
        arguments = self.arguments[:]
        arguments[HEADER : HEADER + 3] = array("q", [tensor.data_ptr() for tensor in (x, result, scratch)])
        run_on(self.function, arguments, self.team)
        return result.t()


@kernel
def _output(dtype: str, chunks: int, vector_bytes: int, forms: Sequence[Form], *, is_turned: bool, is_by_tiles: bool) -> int:
    """Return the address of the kernel of `Output` for tiles of so many vectors."""
    emit = emitter_for(dtype, vector_bytes)
    chain = _Chain(emit, chunks, forms, is_turned=is_turned)
    if is_by_tiles:
        own = emit.own_part(chain.scratch, chain.scratch_bytes)
        with emit.tasks(chain.tiles) as tile:
            for number in range(len(forms) + 1):
                chain.do(number, tile, emit.constant(0), own)
        return emit.compiled()
    for number in range(len(forms) + 1):
        with emit.tasks(emit.times(chain.tiles, chain.shares)) as task:
            tile, share = emit.divided(task, chain.shares)
            chain.do(number, tile, share, emit.aligned(emit.add(chain.scratch, emit.times(tile, chain.scratch_bytes))))
    return emit.compiled()


class _Chain:
    """A chain in the making: what is done of it, a share of a layer's rows in a tile at a time."""

    def __init__(self, emit: Emitter, chunks: int, forms: Sequence[Form], *, is_turned: bool) -> None:
        """Emit the loads of the arguments."""
        self.emit, self.chunks, self.is_turned = emit, chunks, is_turned
        self.x, self.result, self.scratch, self.scratch_bytes = (emit.argument(place) for place in range(4))
        self.batch, self.tiles, self.inputs, self.input_rows, self.shares = (emit.argument(place) for place in range(4, FIRST))
        self.has_edges = any(form.unit != (1, 1) for form in forms)  # rows of a tile that fill whole blocks
        self.layers, self.offsets, at = list[Layer](), list[Any](), emit.constant(0)
        height, end = self.input_rows, FIRST
        for form in forms:
            place, end = end, end + form.addresses + AFTER
            own = [emit.argument(number) for number in range(place, end)]
            self.offsets.append(at)  # of the layer's input in a tile
            at = emit.add(at, emit.times(height, chunks * emit.vector_bytes))
            arrays, (values, bias, bias_step, rows, height) = own[:-AFTER], own[-AFTER:]
            self.layers.append(Layer(form, form, arrays, values, bias, bias_step, arrays, values, rows, height, rows))
        self.offsets.append(at)  # where sums of the last layer are kept

    def do(self, number: int, tile: Any, share: Any, own: Any) -> None:
        """Emit a share of a tile's packing, for number 0, or of a layer's outputs, counted from 1 on."""
        if number == 0:
            self._pack(tile, share, own)
            return
        emit, layer, before = self.emit, self.layers[number - 1], self.emit.add(own, self.offsets[number - 1])
        rows = emit.share(emit.over(layer.rows, layer.form.unit[0]), share, self.shares)
        if number < len(self.layers):
            after = emit.add(own, self.offsets[number])
            emit_outputs(emit, layer, (before, after), rows, self.chunks, relu=True)
            self._clear(after, layer.rows, layer.tile_rows, share)
            return
        piece = Piece(emit, tile, self.chunks, self.batch)
        matrix = layer.form.matrix(layer.arrays, layer.values)
        begin, kept = partial(layer.biased, emit, chunks=self.chunks), emit.add(own, self.offsets[number])

        def finish(row: Any, totals: list[Any]) -> None:
            if layer.form.unit[0] == 1:
                piece.write(totals, piece.of(self.result, row))
                return
            with emit.builder.if_then(emit.builder.icmp_signed("<", row, layer.rows)):
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
        self._clear(own, self.inputs, self.input_rows, share)

    def _clear(self, tile: Any, first: Any, last: Any, share: Any) -> None:
        """Have the last share, which wrote what is before it, clear the rows of a tile that fill whole blocks."""
        if self.has_edges:
            with self.emit.builder.if_then(self.emit.builder.icmp_signed("==", share, self.emit.add(self.shares, -1))):
                self.emit.clear(tile, first, last, self.chunks)
