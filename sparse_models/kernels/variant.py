"""What in a kernel for CPUs is a matter of the machine and not of the result: a variant, numbers that it is compiled with."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Variant(NamedTuple):
    """How a kernel goes about its work; another variant gives the same but for rounding, the same variant the same bits."""

    vectors: int  # in a tile of the batch, at most; 0 for a chain of layers whose tiles do not go through all of them
    together: int  # non-zeros of a row at a time, a power of 2
    vector_bytes: int  # of a vector, a power of 2, at most those of the machine's widest
    threads: int  # at most; torch has so many
    panel_bytes: int = 3 * 2**14  # of a tile's rows that are walked at a time, of the first cache; 0 for all of them

    def __str__(self) -> str:
        """Return it as in vectors=8,together=4,vector_bytes=64,threads=2."""
        return ",".join(f"{name}={number}" for name, number in self._asdict().items())


class Choice(NamedTuple):
    """The variant that is fastest, each that was tried with its time over that of the first, and the seconds that it took.

    On a GPU it is a plan, as numbers: each kernel's plans have their own, which `names` tells.
    """

    variant: tuple[int, ...]
    tried: dict[Any, float]
    seconds: float
    names: tuple[str, ...] = Variant._fields

    def __str__(self) -> str:
        """Return what is chosen, as in vectors=8,together=4,vector_bytes=64,threads=2."""
        return ",".join(f"{name}={int(number)}" for name, number in zip(self.names, self.variant, strict=True))

    @property
    def gain(self) -> float:
        """How many times as fast as the first variant the fastest is."""
        return 1 / self.tried[self.variant]

    def plain(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        tried = [[*variant, time] for variant, time in self.tried.items()]
        names = {} if self.names == Variant._fields else {"names": list(self.names)}
        return {"variant": list(self.variant), "tried": tried, "seconds": self.seconds, **names}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "Choice":
        """Return what `plain` gave; raises KeyError, TypeError or ValueError for anything else."""
        names = tuple(map(str, plain.get("names", Variant._fields)))
        tried = {_numbers(numbers, names): float(time) for *numbers, time in plain["tried"]}
        variant = _numbers(plain["variant"], names)
        if variant not in tried:
            raise ValueError("a choice that was not tried")
        return cls(variant, tried, float(plain["seconds"]), names)


def _numbers(numbers: Any, names: tuple[str, ...]) -> tuple[int, ...]:
    if names != Variant._fields:
        return tuple(int(number) for _, number in zip(names, numbers, strict=True))
    variant = Variant(*map(int, numbers))
    if min(variant.together, variant.vector_bytes, variant.threads, variant.vectors + 1) < 1:
        raise ValueError("numbers that no variant has")
    return variant
