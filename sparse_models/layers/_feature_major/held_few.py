"""The output of a chain of layers for few samples in one call of a kernel, while all that it is made from is as it was.

And that there is none, which is asked as often, and takes as long to find out as the layers take.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from torch import Tensor

from sparse_models.kernels.cpu._team import threads
from sparse_models.kernels.cpu.chain.few import FewSamples
from sparse_models.kernels.cpu.few import sliced
from sparse_models.kernels.cpu.few.frozen import Frozen, Ready
from sparse_models.kernels.source import are_same
from sparse_models.layers._base import SparseLinear
from sparse_models.linear import are_watched

if TYPE_CHECKING:
    from sparse_models.layers.tiled import Tiled


class HeldFew:
    """A chain of layers, and the product of so many samples that each has ready."""

    is_by_tiles, is_known = False, True

    def __init__(self, layers: Sequence["Tiled"], ready: Sequence[Ready], batch: int) -> None:
        """Hold them, as they are now."""
        self.layers, self.batch, self.threads = list(layers), batch, threads()
        self.each = list(zip(layers, ready, strict=True))
        self.own = [vars(layer) for layer in layers]
        self.of = FewSamples(ready).of

    @classmethod
    def made(cls, layers: Sequence["Tiled"], batch: int) -> "HeldFew | None":
        """Return it for layers whose products are ready; None for others, and for those that do not fit one another."""
        ready = [_chained(layer, batch) for layer in layers]
        fits = all(before.out_features == after.in_features for before, after in pairwise(layers))
        there = [one for one in ready if one is not None]
        return cls(layers, there, batch) if fits and len(there) == len(layers) else None

    def is_current(self, layers: Sequence[SparseLinear], _: Tensor) -> bool:
        """Tell whether these are the layers, no hook waits for one, and what each has ready is of what it is now."""
        if layers != self.layers or threads() != self.threads or are_watched(self.own):
            return False
        return all(_chained(layer, self.batch) is ready for layer, ready in self.each)


class NotForFew:
    """That a chain of layers is not one call of the kernel for few samples: layer by layer or by tiles it is right in any case.

    It stands as long as the layers, their structures, modes and number type are those by which it was found.
    """

    def __init__(self, layers: Sequence["Tiled"], x: Tensor) -> None:
        """Find whether x [batch, in] is rather a call of tiles, as several samples are that some layer has other copies for."""
        self.layers, self.dtype, self.of_each, batch = list(layers), x.dtype, _told_by(layers), len(x)
        self.is_by_tiles = not all(layer.is_for_few(x) and (batch == 1 or layer.form_for(x) is sliced.pack) for layer in layers)
        # Layers whose products are not ready yet may be one call once they are.
        ready = [_ready_for(layer, batch) for layer in layers]
        self.is_known = self.is_by_tiles or any(one is not None and not one.is_chained for one in ready)

    def is_current(self, layers: Sequence[SparseLinear], x: Tensor) -> bool:
        """Tell whether it still stands."""
        return layers == self.layers and x.dtype == self.dtype and are_same(_told_by(layers), self.of_each)

    def of(self, x: Tensor) -> None:
        """Return nothing: there is no one call for few samples."""


def _told_by(layers: Sequence[SparseLinear]) -> list[object]:
    return [own for layer in layers for own in (layer.training, layer._buffers["columns"])]  # noqa: SLF001


def _ready_for(layer: "Tiled", batch: int) -> Ready | None:
    """Return a layer's product of so many samples where it is made from what the layer is now."""
    frozen = layer._frozen  # noqa: SLF001  # of those that are chained
    ready = frozen.ready.get(batch) if isinstance(frozen, Frozen) else None
    if ready is None or layer.training:
        return None
    own, index = layer._parameters, layer._buffers["columns"]  # noqa: SLF001
    return ready if ready.is_current(index, own.get("values"), own.get("bias")) else None


def _chained(layer: "Tiled", batch: int) -> Ready | None:
    """Return the same where a chain takes it."""
    ready = _ready_for(layer, batch)
    return ready if ready is not None and ready.is_chained and layer.adds_nothing() else None
