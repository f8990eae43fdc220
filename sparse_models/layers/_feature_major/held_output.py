"""The output of a chain of layers in one call of a kernel, with all that is looked up once."""

from collections.abc import Sequence

from torch import Tensor

from sparse_models.kernels.cpu._team import threads
from sparse_models.kernels.cpu.chain.output import Output
from sparse_models.kernels.link import Link
from sparse_models.kernels.source import Held, are_same, tensors_of
from sparse_models.layers._base import SparseLinear

MOST_BATCHES = 4  # sizes, and layouts, of which an output is held


class HeldOutput:
    """A chain of layers as a kernel takes them; nothing is held that is made from the values."""

    def __init__(self, layers: Sequence[SparseLinear], links: Sequence[Link]) -> None:
        """Hold layers, as `links` has them."""
        self.layers, self.links, self.threads = list(layers), links, threads()
        self.held, self.by_batch = Held(tensors_of(layers)), dict[tuple[int, bool], Output]()
        parameters = [one for layer in layers for one in layer._parameters.values() if one is not None]  # noqa: SLF001  # its own
        self.lying = [(one, one.detach()) for one in parameters]  # another view of that memory may begin where one does

    def is_current(self, layers: Sequence[SparseLinear]) -> bool:
        """Tell whether all layers and tensors are those that are held, at their places in memory."""
        are_held = are_same(layers, self.layers) and threads() == self.threads and self.held.are(tensors_of(layers))
        return are_held and all(own.is_set_to(lying) for own, lying in self.lying)

    def of(self, x: Tensor) -> Tensor | None:
        """Return what the layers make of x [batch, in]: [batch, out], feature-major; None for what they would misread."""
        if not self.links[0].reads(x):
            return None
        turned = x.t()
        is_turned = turned.is_contiguous()
        key = len(x), is_turned
        output = self.by_batch.get(key)  # looked up once: another thread may let go of it
        if output is None:
            if len(self.by_batch) == MOST_BATCHES:
                self.by_batch.clear()
            output = self.by_batch[key] = Output(self.links, len(x), is_turned=is_turned)
        return output.of(turned if is_turned else x.contiguous())
