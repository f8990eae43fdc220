"""What the command line selects."""

from typing import NamedTuple

from bench import grids
from sparse_models.layers import LAYERS


class OwnModel(NamedTuple):
    """A network of the user's: by what name it is loaded, and the shape that its whole has as a case."""

    reference: str  # package.module:function
    shape: str
    can_learn: bool  # whether there is a training step of it
    mask: str = "-"  # a file of masks
    sparsity: float | None = None  # of all masks together
    sparsities: tuple[tuple[str, tuple[float, ...]], ...] = ()  # of the masks of layers, by shape


class Selection(NamedTuple):
    """What of the grid is to be measured; None = the defaults of each operation."""

    ops: tuple[str, ...]
    layers: tuple[str, ...] | None
    updates: tuple[str, ...] | None
    shapes: tuple[str, ...] | None
    sparsities: tuple[float, ...] | None
    devices: tuple[str, ...]
    dtypes: tuple[str, ...] | None
    threads: tuple[int, ...]
    regimes: tuple[str, ...] | None
    data: tuple[str, ...] | None
    protocols: tuple[str, ...] | None
    seeds: int
    skews: tuple[float, ...] = (0.0,)
    distributions: tuple[str, ...] = (grids.DISTRIBUTION,)
    zeros: tuple[float, ...] | None = None
    is_full: bool = False  # the full grid, where the default one is not enough
    epochs: int | None = None  # of trainings
    interval: int | None = None  # of trainings: steps from one mask update to the next
    rivals: tuple[str, ...] = ()  # number types in which dense is timed as well, as the machine has instructions for them
    model: OwnModel | None = None  # whose layers have the shapes that are measured, and whose whole is too

    def zeros_of(self, op: str, *, skips: bool) -> tuple[float, ...]:
        """Return the shares of zero inputs at which an operation is timed of a layer that skips them, or does not."""
        return (0.0,) if op != "forward" else self.zeros or (grids.ZEROS if skips else (0.0,))

    def protocols_of(self, data: str) -> tuple[str, ...]:
        """Return the protocols by which networks are trained on a data set."""
        if self.protocols or data == "random":  # random labels leave nothing to tune towards
            return self.protocols or grids.PROTOCOLS[:1]
        return grids.PROTOCOLS if self.is_full or self.data else (grids.DEFAULT_PROTOCOLS[data],)

    @property
    def has_references(self) -> bool:
        """Whether what saves time without a sparse kernel is measured too: where dense is asked for, or no layer by name."""
        return self.layers is None or "dense" in self.layers

    def has_unpruned(self, device: str, dtype: str) -> bool:
        """Tell whether dense by our own kernels is measured as well: where they run, but on a GPU, whose own are faster.

        Of a model of the user's it would be measured at each of its many shapes.
        """
        can_run = grids.stored(dtype) in LAYERS[grids.UNPRUNED_LAYER].dtypes_on(device) and not grids.is_gpu(device)
        return can_run and self.has_references and (self.model is None or self.is_full)
