"""What a packed copy of weights, or a call that is ready, was made from, so that it is seen when that has changed."""

from collections.abc import Collection, Iterable, Sequence
from operator import is_
from typing import Any, NamedTuple

from torch import Tensor, nn


class Held:
    """Tensors whose addresses a call that is ready has: held, so that nothing else takes their place in memory."""

    def __init__(self, tensors: Sequence[Tensor | None]) -> None:
        """Hold tensors, and that there is none where there might be one."""
        self.tensors = tensors
        self.places = [tensor.data_ptr() for tensor in tensors if tensor is not None]

    def are(self, tensors: Collection[Tensor | None]) -> bool:
        """Tell whether these are the same tensors, at the same addresses; numbers in them may have changed."""
        places = [tensor.data_ptr() for tensor in tensors if tensor is not None]
        return are_same(tensors, self.tensors) and places == self.places


def are_same(now: Collection[Any], before: Collection[Any]) -> bool:
    """Tell whether two sequences are of the very same objects."""
    return len(now) == len(before) and all(map(is_, now, before))


def tensors_of(modules: Iterable[nn.Module]) -> list[Tensor | None]:
    """Return the parameters and buffers of modules themselves; nn.Module's own ways take as long as a small product."""
    found = list[Tensor | None]()
    for module in modules:
        found += module._parameters.values()  # noqa: SLF001
        found += module._buffers.values()  # noqa: SLF001
    return found


class Source(NamedTuple):
    """What weights were made from, held so that nothing else takes its place in memory, and how often each was changed."""

    columns: Tensor
    values: Tensor
    versions: tuple[int, int]

    @classmethod
    def of(cls, columns: Tensor, values: Tensor) -> "Source":
        """Return the two as they are now."""
        return cls(columns, values, (columns._version, values._version))  # noqa: SLF001  # PyTorch has no public name for it

    def outdated(self) -> "Source":
        """Return the same with values that are none's."""
        return self._replace(versions=(self.versions[0], -1))

    def has_values_of(self, now: "Source") -> bool:
        """Tell whether these are still the weights, as far as can be told: a CUDA graph's replay changes them unseen."""
        if self.values.device != now.values.device:  # of which one may be "meta", which lies nowhere
            return False
        same = self.values.is_set_to(now.values) and self.versions[1] == now.versions[1]
        return same and self.has_structure_of(now)

    def has_structure_of(self, now: "Source") -> bool:
        """Tell whether this is still the structure, and the dtype: other values then take the place of these."""
        same = self.columns.is_set_to(now.columns) and self.versions[0] == now.versions[0]
        return same and self.values.dtype == now.values.dtype
