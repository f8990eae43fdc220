"""What the processes of a case say, by their numbers, read from where the figures are: a thousand runs are held at once."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache


class Sample(Mapping[int, float]):
    """A positive figure by the number of its process."""

    __slots__ = ("_places", "_values")

    def __init__(self, numbers: Sequence[int], values: Sequence[float]) -> None:
        """Take the figures as they are; those of one length and order of processes share where each stands."""
        self._places, self._values = _places(tuple(numbers)), values

    def __getitem__(self, number: int) -> float:
        """Return the figure of a process."""
        return self._values[self._places[number]]

    def __iter__(self) -> Iterator[int]:
        """Iterate over the processes' numbers."""
        return iter(self._places)

    def __len__(self) -> int:
        """Return how many processes there are."""
        return len(self._places)


@lru_cache(maxsize=4096)
def _places(numbers: tuple[int, ...]) -> dict[int, int]:
    return {number: place for place, number in enumerate(numbers)}
