"""What steps have in common: the arguments after those of the layers, values in their transposes' order, loss and updates."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from sparse_models.kernels.cpu._emit import Emitter
from sparse_models.kernels.cpu._pass import end_of, layers_of
from sparse_models.kernels.cpu.chain._cut import Arguments, Form
from sparse_models.kernels.cpu.chain._ready import Ready
from sparse_models.kernels.cpu.chain._update import Parameter, Updated, table
from sparse_models.kernels.cpu.chain.rules import Rule
from sparse_models.kernels.cpu.csr._form import CsrForm
from sparse_models.kernels.cpu.permute import gather
from sparse_models.kernels.link import Link
from sparse_models.kernels.structure import Structure

OWN, EACH = 3, 2  # arguments of a step before the layers' orders, and those of each layer


def reordered(links: Sequence[Link]) -> list[Tensor]:
    """Return for each layer where its values in its transpose's order are: new memory, or where they are already.

    Blocks stay where they are, and of the first layer there is no input gradient.
    """
    is_new = [number > 0 and isinstance(link.columns, Structure) for number, link in enumerate(links)]
    return [torch.empty_like(link.values) if new else link.values for link, new in zip(links, is_new, strict=True)]


def ready_with(
    function: int,
    own: Arguments,
    links: Sequence[Link],
    parameters: Sequence[Parameter | None],
    rule: Rule,
    sizes: tuple[int, int],
) -> Ready:
    """Return a step that calls a function with the arguments of a pass, its layers and what becomes of their parameters.

    Sizes are those of the team, and into how many shares work is cut.
    """
    team, shares = sizes
    starts = list(accumulate(own.lengths, initial=0))[:-1]
    rows, numbers = table(parameters, starts), own.sums.new_empty(len(parameters), rule.width)
    orders = [own for link in links for own in (link.transposition, link.rows.pointers)]
    return Ready(function, [*own.rest, rows, numbers, shares, *orders], team, numbers, parameters)


class Frame:
    """A step in the making: its arguments, and what is done in them whatever way the gradients are found."""

    def __init__(self, emit: Emitter, forms: Sequence[Form], rule: Rule) -> None:
        """Emit the loads of the arguments."""
        self.emit, self.rule, self.layers = emit, rule, layers_of(emit, forms)
        first, count = end_of(forms), len(self.layers)
        self.x, self.labels, self.powers, self.shifts, self.scratch, self.sums, self.numbers, self.batch, self.tiles = (
            emit.argument(place) for place in range(9)
        )
        self.parts, self.scratch_bytes = emit.argument(9), emit.argument(10)
        self.inputs = emit.argument(13)
        self.rows, self.all_numbers, self.shares = (emit.argument(first + place) for place in range(OWN))
        # Of each layer: where each of the transpose's values is, and where rows start.
        self.orders, self.pointers = (
            [emit.argument(first + OWN + EACH * place + which) for place in range(count)] for which in range(EACH)
        )
        self.loss = emit.argument(first + OWN + EACH * count)

    def reorder(self, share: Any) -> None:
        """Bring a share of all values into the order of their transposes.

        In the step itself: a copy from the step before could not be known to be current, as PyTorch's fused optimizers change
        values and do not count it.
        """
        for layer, order in list(zip(self.layers, self.orders, strict=True))[1:]:
            if isinstance(layer.form, CsrForm):
                numbers = self.emit.share(layer.numbers, share, self.shares)
                gather(self.emit, layer.values, order, layer.transposed_values, numbers)

    def write_loss(self) -> None:
        """Write the mean of the samples' cross-entropies from what `cross_entropy` has written of each tile."""
        emit = self.emit
        with emit.loop(emit.constant(0), self.tiles, carried=[emit.zero()]) as tile:
            at = emit.times(tile.place, emit.vector_bytes)
            power, shift = (emit.load(emit.vector, emit.add(of, at)) for of in (self.powers, self.shifts))
            tile.carried = [emit.plus(tile.carried[0], emit.plus(emit.each("log", power), shift))]
        count = emit.builder.sitofp(self.batch, emit.number)
        emit.store(emit.builder.fdiv(emit.total(*tile.carried), count), self.loss)

    def updated(self, parameter: Any) -> Updated:
        """Emit the loads of what belongs to a parameter: each layer's values and bias in turn."""
        return Updated(self.emit, self.rule, (self.rows, self.all_numbers), parameter)

    def update(self, updated: Updated, start: Any, end: Any) -> None:
        """Emit the update of a parameter from one place to below another, by the gradients' sums over all parts."""
        part_bytes = self.emit.times(self.numbers, self.emit.width)
        last = self.emit.add(self.sums, self.emit.times(part_bytes, self.parts))
        updated.update(start, end, (self.sums, last, part_bytes))
