"""A step with all that is known before it: to look that up again takes longer than the step of a small model."""

from collections.abc import Sequence

from torch import Tensor

from sparse_models.kernels.cpu._flow import HEADER
from sparse_models.kernels.cpu._team import passed, run_on
from sparse_models.kernels.cpu.chain._update import Parameter


class Ready:
    """A compiled step and its arguments: x and labels, what is held, and where the loss is written."""

    def __init__(
        self,
        function: int,
        held: Sequence[Tensor | int],
        team: int,
        numbers: Tensor,
        parameters: Sequence[Parameter | None],
    ) -> None:
        """Hold what the function is given between labels and loss, and the parameters, whose addresses are in a table there."""
        self.function, self.team, self.held, self.parameters = function, team, held, parameters
        self.arguments = passed(function, [0, 0, *held, 0], team)
        self.loss_place = HEADER + 2 + len(held)
        self.numbers = numbers.numpy().reshape(-1)  # a view: to write to it takes a tensor several times as long

    def step(self, x: Tensor, labels: Tensor, numbers: Sequence[float]) -> Tensor:
        """Take a step on x [batch, in] and labels [batch], both contiguous, with these numbers of each parameter in turn."""
        loss, arguments = x.new_empty(()), self.arguments[:]
        arguments[HEADER], arguments[HEADER + 1] = x.data_ptr(), labels.data_ptr()
        arguments[self.loss_place] = loss.data_ptr()
        self.numbers[:] = numbers
        run_on(self.function, arguments, self.team)
        return loss
