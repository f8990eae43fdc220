"""What a step leaves of a layer, from which the gradient of every weight is a product: kept, as no gradient of it is."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from sparse_models.kernels.cpu._emit import CACHE_LINE
from sparse_models.kernels.cpu.chain._ready import Ready

LANES = 16  # of a vector, at most: a tile has a multiple of them


class Factors(NamedTuple):
    """A layer's output gradients [out, samples] and inputs [in, samples], tile by tile; they hold until the next step."""

    slopes: list[Tensor]
    inputs: list[Tensor]
    table: Tensor  # of their addresses [tiles, 2]

    @classmethod
    def of(cls, slopes: Tensor, inputs: Tensor) -> "Factors":
        """Return those of a batch, from output gradients [batch, out] and inputs [batch, in] on a CPU: copies, as tiles are."""
        short = -len(slopes) % LANES
        pair = [functional.pad(one.t(), (0, short)).contiguous() for one in (slopes, inputs)]
        return cls([pair[0]], [pair[1]], torch.tensor([[one.data_ptr() for one in pair]], device=pair[0].device))

    def of_rows(self, first: int, result: Tensor) -> Tensor:
        """Fill `result` [rows, in] with the gradient of the weights of as many rows from one on, and return it."""
        rows = slice(first, first + len(result))
        torch.mm(self.slopes[0][rows], self.inputs[0].t(), out=result)
        for slopes, inputs in zip(self.slopes[1:], self.inputs[1:], strict=True):
            result.addmm_(slopes[rows], inputs.t())
        return result

    def dense(self) -> Tensor:
        """Return the gradient of every weight [out, in]."""
        return self.of_rows(0, self.slopes[0].new_empty(len(self.slopes[0]), len(self.inputs[0])))


Gradient = Tensor | Factors  # of every weight [out, in]: itself, or what it is a product of


def dense_of(gradient: Gradient) -> Tensor:
    """Return a gradient of every weight as a tensor [out, in]."""
    return gradient.dense() if isinstance(gradient, Factors) else gradient


class Leaving(NamedTuple):
    """A step that leaves the factors of each layer."""

    ready: Ready
    factors: list[Factors]


def factors_in(scratch: Tensor, sizes: Sequence[int], width: int, dtype: torch.dtype) -> list[Factors]:
    """Return each layer's factors where a step by rows leaves them, in tiles of so many samples, for a chain of some sizes.

    A tile has the input of each layer, the logits, and the output gradient of each layer, one after the other.
    """
    places = list(accumulate((*sizes, *sizes[1:]), initial=0))
    tiles = []
    for own in scratch:
        aligned = own[-own.data_ptr() % CACHE_LINE :]
        numbers = aligned[: places[-1] * width * dtype.itemsize].view(dtype).view(places[-1], width)
        tiles.append([numbers[start:end] for start, end in pairwise(places)])
    last = len(sizes) - 1
    found = []
    for layer in range(last):
        slopes, inputs = [tile[last + 1 + layer] for tile in tiles], [tile[layer] for tile in tiles]
        addresses = [[tensor.data_ptr() for tensor in pair] for pair in zip(slopes, inputs, strict=True)]
        found.append(Factors(slopes, inputs, torch.tensor(addresses, device=scratch.device)))
    return found
