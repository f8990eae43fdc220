"""What an optimizer makes of gradients that were just found, parameter by parameter: a piece of each at a time."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sparse_models.kernels.cpu._emit import Emitter
from sparse_models.kernels.cpu.chain.rules import Rule

MOMENTS = 2  # of an optimizer, at most
COLUMNS = 3 + MOMENTS  # of the table


class Parameter(NamedTuple):
    """Values that are updated, and what the optimizer keeps of them, all contiguous and of one dtype."""

    values: Tensor
    moments: tuple[Tensor, ...]


def table(parameters: Sequence[Parameter | None], starts: Sequence[int]) -> Tensor:
    """Return what a kernel is told of parameters [parameters, COLUMNS], whose gradients start at some places of the sums."""
    rows = []
    for parameter, start in zip(parameters, starts, strict=True):
        held = [] if parameter is None else [parameter.values, *parameter.moments]
        addresses = [tensor.data_ptr() for tensor in held]
        own = [len(held) and held[0].numel(), start]
        rows.append([*addresses, *[0] * (COLUMNS - len(own) - len(held)), *own])
    return torch.tensor(rows, dtype=torch.int64, device="cpu")


class Updated:
    """One of a table's parameters in the making: the addresses of what belongs to it, and the numbers of its rule."""

    def __init__(self, emit: Emitter, rule: Rule, places: Sequence[Any], parameter: Any) -> None:
        """Emit the loads for a row of the table, by the addresses of the table and of each row's numbers."""
        self.emit, self.rule = emit, rule
        rows, all_numbers = places
        row = emit.add(rows, emit.times(parameter, 8 * COLUMNS))
        own = [emit.index(row, emit.constant(column), 8) for column in range(COLUMNS)]
        self.values, self.moments = own[0], own[1 : 1 + len(rule.moments)]
        self.count, self.start = own[-2:]
        first = emit.add(all_numbers, emit.times(parameter, rule.width * emit.width))
        self.numbers = [emit.splat(emit.load(emit.number, emit.add(first, at * emit.width))) for at in range(rule.width)]

    def update(self, start: Any, end: Any, sums: Sequence[Any]) -> None:
        """Emit the update of what lies from one place to below another, and below all that there is.

        The gradient is added up from the sums: given are their address, that of where they end, and the bytes of each part's.
        """
        emit, (first, last, part_bytes) = self.emit, sums
        end = emit.least(end, self.count)
        with emit.loop(start, end, emit.lanes) as group:
            left = emit.builder.sub(end, group.place)
            offset = emit.times(group.place, emit.width)
            addresses = [emit.add(base, offset) for base in (self.values, *self.moments)]
            value, *moments = (emit.first_numbers(address, 1, left)[0] for address in addresses)

            own = emit.add(first, emit.times(emit.add(self.start, group.place), emit.width))
            with emit.loop(own, last, part_bytes, [emit.zero()]) as part:
                part.carried = [emit.plus(part.carried[0], emit.first_numbers(part.place, 1, left)[0])]
            [gradient] = part.carried
            value, moments = self.rule.emitted(emit, self.numbers, value, gradient, moments)
            for vector, address in zip([value, *moments], addresses, strict=True):
                emit.write_first_numbers([vector], address, left)
