"""The product of one sample with a block-sparse weight, with all that is looked up once: that takes longer than the product."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sparse_models.kernels.candidates import team_for
from sparse_models.kernels.cpu._arithmetic import name_of
from sparse_models.kernels.cpu._emit import TICKETS
from sparse_models.kernels.cpu._team import passed, run_on, threads
from sparse_models.kernels.cpu._tile import of_bias
from sparse_models.kernels.cpu.blocks._matrix import BlockForm
from sparse_models.kernels.cpu.blocks._single import single
from sparse_models.kernels.source import Held
from sparse_models.kernels.structure import BlockStructure


class OneSample:
    """A layer's product for one sample; nothing is held that is made from the values."""

    def __init__(
        self, tensors: Sequence[Tensor | None], structure: BlockStructure, values: Tensor, bias: Tensor | None, x: Tensor
    ) -> None:
        """Hold it for a layer's tensors, all that it has, and for x [1, in] like this one; blocks divide its sizes."""
        self.held, self.threads = Held(tensors), threads()
        self.lying = [(one, one.detach()) for one in (values, bias) if one is not None]  # another view may begin there
        self.shape, self.dtype = x.shape, x.dtype
        self.room = x.new_empty(1, structure.rows)  # no result itself, for each call has its own
        self.function = single(name_of(x.dtype), BlockForm.of(structure))
        pointers, indices, order = structure.arrays
        rest = (*of_bias(bias), structure.rows_of_blocks, 1)
        self.numbers = passed([pointers, indices, order, values, x, self.room, *rest])
        asked = ("blocks", (structure.columns, structure.rows), 1, values.numel(), x.dtype)
        x = x.contiguous()
        self.team = 1
        self.team = min(team_for(asked, values.numel(), lambda team: self._run(x, team)), structure.rows_of_blocks)

    def is_current(self, tensors: Sequence[Tensor | None]) -> bool:
        """Tell whether these are the tensors that it was made for, where and as they were, for as many threads."""
        if threads() != self.threads or not self.held.are(tensors):
            return False
        return all(own.is_set_to(lying) for own, lying in self.lying)

    def of(self, x: Tensor) -> Tensor | None:
        """Return the product with x [1, in], plus bias: [1, out]; None for what it would misread."""
        if x.shape != self.shape or x.dtype != self.dtype or not x.is_cpu or x.is_neg():
            return None
        return self._run(x if x.is_contiguous() else x.contiguous(), self.team)

    def _run(self, x: Tensor, team: int) -> Tensor:
        result = torch.empty_like(self.room)  # in two thirds of the time of what is told a shape
        numbers = self.numbers[:]
        numbers[TICKETS + 4], numbers[TICKETS + 5], numbers[-1] = x.data_ptr(), result.data_ptr(), team
        run_on(self.function, numbers, team)
        return result
