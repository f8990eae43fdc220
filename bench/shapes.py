"""Layer sizes and a batch, as they are written; and those of the networks that are trained on a data set."""

import re
from typing import NamedTuple

from bench import grids
from bench.selection import Selection
from sparse_models.errors import InputError
from sparse_models.loading import load


class Shape(NamedTuple):
    """Layer sizes (in, hidden ..., out) and the batch; two sizes are one layer, more are an MLP with ReLU between."""

    sizes: tuple[int, ...]
    batch: int

    @classmethod
    def parse(cls, text: str) -> "Shape":
        """Return the shape written as 256x256b4096; raises InputError for anything else and for a zero."""
        match = re.fullmatch(r"(\d{1,9}(?:x\d{1,9})+)b(\d{1,9})", text)
        shape = cls(tuple(int(size) for size in match[1].split("x")), int(match[2])) if match else None
        if shape is None or min(*shape.sizes, shape.batch) < 1:
            raise InputError(
                f"expected a shape like 256x128b64 (input, output and batch sizes, each at least 1), got {text!r}; "
                "more sizes make an MLP, as in 100x256x256x10b4096"
            )
        return shape

    def __str__(self) -> str:
        """Return the shape as `parse` reads it."""
        return f"{self.chain}b{self.batch}"

    @property
    def chain(self) -> str:
        """The sizes alone, as in 256x128."""
        return "x".join(map(str, self.sizes))


def chosen_data(selection: Selection) -> tuple[str, ...]:
    """Return the data sets that are to be trained on."""
    return selection.data or tuple(grids.FEATURES if selection.is_full else grids.DEFAULT_PROTOCOLS)


def training_shapes(data: str, selection: Selection) -> list[Shape]:
    """Return the shapes of the networks that are trained on a data set: those asked for that take it in, or the experiment's.

    Where trainings alone are asked for, and no shape takes the data set in, there is none.
    """
    own = training_shape(data)
    asked = map(Shape.parse, selection.shapes or ())
    fitting = [shape for shape in asked if (shape.sizes[0], shape.sizes[-1]) == (own.sizes[0], own.sizes[-1])]
    return fitting or ([] if selection.shapes and selection.ops == ("train",) else [own])


def for_no_data(selection: Selection) -> str | None:
    """Return a sentence on the shapes asked for that fit no data set to be trained on, None where there are none."""
    own = {data: training_shape(data) for data in chosen_data(selection)}
    fitting = {str(shape) for data in own for shape in training_shapes(data, selection)}
    left = [shape for shape in selection.shapes or () if shape not in fitting]
    if not left or "train" not in selection.ops:
        return None
    needed = ", ".join(f"{shape.sizes[0]} and {shape.sizes[-1]} for {data}" for data, shape in own.items())
    return (
        f"--shape: expected the first and last sizes of a data set to train on ({needed}), got {', '.join(left)}; "
        "change them, or choose --data"
    )


def training_shape(data: str) -> Shape:
    """Return the sizes of the experiment's network on a data set, and the batch."""
    _, batch = grids.epochs_and_batch(data)
    if data in grids.FEATURES:
        return Shape((grids.FEATURES[data], *grids.HIDDEN, 10), batch)
    own = load(data)  # the user's
    return Shape((own.train.inputs.shape[1], *grids.HIDDEN, own.classes), batch)


def default_regime(op: str, shape: str, device: str) -> str:
    """Return the regime of a case where none is asked for: as the operation is best run, with weights where they would be."""
    if not grids.is_gpu(device):
        return "warm"
    return grids.COLD_REPLAY if op == "forward" and Shape.parse(shape).batch <= grids.COLD_BATCH else "graph"
