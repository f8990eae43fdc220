"""Sizes and batch of a case, as they are written and read."""

import re
from typing import NamedTuple

from sparse_models.errors import InputError


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
