"""Layers whose masks move in place, again and again: what is known of them, and the memory that a move takes, is held."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from sparse_models.kernels.cpu._team import threads
from sparse_models.kernels.cpu.moves._table import BEHIND, COLUMNS, FOUND, SCORE_NAN, STATE, WEIGHT_NAN, Storage, Work
from sparse_models.kernels.cpu.moves.drop import drop
from sparse_models.kernels.cpu.moves.grow import Source, grow
from sparse_models.kernels.cpu.moves.rebuild import rebuild
from sparse_models.kernels.source import Held


class HeldLayers:
    """Layers, all of one dtype, with memory for their moves."""

    def __init__(self, tensors: Sequence[Tensor], storages: Sequence[Storage], scored: torch.dtype) -> None:
        """Hold layers whose scores are of a type."""
        self.tensors, self.scored, self.team = Held(tensors), scored, threads()
        self.forms = list(dict.fromkeys(storage.form for storage in storages))
        on = storages[0].values.device
        self.rows = torch.zeros(len(storages), len(COLUMNS), dtype=torch.int64, device=on)
        self.states = torch.zeros(len(storages), STATE, dtype=torch.int64, device=on)
        self.works = [
            Work(storage, row, state, self.forms.index(storage.form), scored, self.team)
            for storage, row, state in zip(storages, self.rows, self.states, strict=True)
        ]
        self.parts = torch.cat([work.part_rows for work in self.works])
        for work, own in zip(self.works, self.parts.split([work.parts for work in self.works]), strict=True):
            work.hold(own)
        self.packed = torch.empty(0, dtype=scored, device=on)

    def move(self, sources: Sequence[Source], grown: Sequence[int]) -> bool:
        """Move all masks: of each layer so many weights are dropped, and grown by the source of their scores.

        Where a weight or a score is NaN nothing is changed, and what is returned is False.
        """
        moved = [(work, source, count) for work, source, count in zip(self.works, sources, grown, strict=True) if count]
        if not moved:
            return True
        for work, _, count in moved:
            work.grow(count)
        works, rows, parts = self.works, self.rows, self.parts
        if len(moved) < len(works):
            works = [work for work, *_ in moved]
            rows, parts = torch.stack([work.row for work in works]), torch.cat([work.part_rows for work in works])
        drop(works, rows)
        grow([(work, source) for work, source, _ in moved], (rows, parts), self.room, self.packed_room)
        for work in works:
            state = work.state.tolist()
            if state[SCORE_NAN] or state[WEIGHT_NAN] or state[FOUND] < work.grown:
                return False
        rebuild(works, (rows, parts), self.forms)
        increment_version([tensor for work in works for tensor in work.storage.written])
        return True

    def room(self) -> list[Tensor]:
        """Return memory for a chunk of scores of each part of a layer."""
        sizes = [work.at_once * work.storage.shape[1] for work in self.works]
        return [self.packed.new_empty(max(sizes) + BEHIND) for _ in range(max(work.parts for work in self.works))]

    def packed_room(self, count: int) -> Tensor:
        """Return memory for so many packed numbers."""
        if self.packed.numel() < count:
            self.packed = self.packed.new_empty(count)
        return self.packed
