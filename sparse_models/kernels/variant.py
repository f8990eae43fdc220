"""What in a kernel for CPUs is a matter of the machine and not of the result: a variant, numbers that it is compiled with."""

from typing import NamedTuple


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
