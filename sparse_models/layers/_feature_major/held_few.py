"""The output of a chain of layers for few samples in one call of a kernel, while all that it is made from is as it was."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from sparse_models.kernels.cpu._team import threads
from sparse_models.kernels.cpu.chain.few import FewSamples
from sparse_models.kernels.cpu.few.frozen import Frozen, Ready
from sparse_models.layers._base import SparseLinear
from sparse_models.linear import are_watched

if TYPE_CHECKING:
    from sparse_models.layers.tiled import Tiled


class HeldFew:
    """A chain of layers, and the product of so many samples that each has ready."""

    def __init__(self, layers: Sequence["Tiled"], ready: Sequence[Ready], batch: int) -> None:
        """Hold them, as they are now."""
        self.layers, self.batch, self.threads = list(layers), batch, threads()
        self.each = list(zip(layers, ready, strict=True))
        self.own = [vars(layer) for layer in layers]
        self.of = FewSamples(ready).of

    @classmethod
    def made(cls, layers: Sequence["Tiled"], batch: int) -> "HeldFew | None":
        """Return it for layers whose products are ready; None for others, and for those that do not fit one another."""
        ready = [_ready_for(layer, batch) for layer in layers]
        fits = all(before.out_features == after.in_features for before, after in pairwise(layers))
        there = [one for one in ready if one is not None]
        return cls(layers, there, batch) if fits and len(there) == len(layers) else None

    def is_current(self, layers: Sequence[SparseLinear]) -> bool:
        """Tell whether these are the layers, no hook waits for one, and what each has ready is of what it is now."""
        if layers != self.layers or threads() != self.threads or are_watched(self.own):
            return False
        return all(_ready_for(layer, self.batch) is ready for layer, ready in self.each)


def _ready_for(layer: "Tiled", batch: int) -> Ready | None:
    """Return a layer's product of so many samples where it is made from what the layer is now, and a chain takes it."""
    frozen = layer._frozen  # noqa: SLF001  # of those that are chained
    ready = frozen.ready.get(batch) if isinstance(frozen, Frozen) else None
    if ready is None or layer.training or not ready.is_chained or not layer.adds_nothing():
        return None
    own, index = layer._parameters, layer._buffers["columns"]  # noqa: SLF001
    return ready if ready.is_current(index, own.get("values"), own.get("bias")) else None
