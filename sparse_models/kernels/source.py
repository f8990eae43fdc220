"""What a packed copy of weights was made from, so that it is seen when they have changed."""

from typing import NamedTuple

from torch import Tensor


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
        same = self.values.data_ptr() == now.values.data_ptr() and self.versions[1] == now.versions[1]
        return same and self.has_structure_of(now)

    def has_structure_of(self, now: "Source") -> bool:
        """Tell whether this is still the structure, and the dtype: other values then take the place of these."""
        same = self.columns.data_ptr() == now.columns.data_ptr() and self.versions[0] == now.versions[0]
        return same and self.values.dtype == now.values.dtype
