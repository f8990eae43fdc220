"""Which variants of a kernel are worth trying for a call: the default first, and few, for each is compiled and measured."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sparse_models.kernels.choice import variant_for
from sparse_models.kernels.cpu._arithmetic import name_of
from sparse_models.kernels.cpu._compile import vector_bytes
from sparse_models.kernels.cpu._team import WORTH_TRYING, threads, threads_for
from sparse_models.kernels.cpu._tile import tiling
from sparse_models.kernels.cpu.csr._panels import default
from sparse_models.kernels.structure import Sizes, Structure
from sparse_models.kernels.variant import Variant


def chosen(kernel: str, structure: Structure, x: Tensor, call: Callable[..., Tensor] | None) -> Variant:
    """Return the variant for a product with x [columns, batch], measured by way of `call` where it is not known yet."""
    sizes, batch, dtype = structure.sizes, x.shape[1], x.dtype
    if batch == 1:
        return default(sizes)
    return variant_for(
        (kernel, (sizes.columns, sizes.rows), batch, sizes.nnz, dtype),
        lambda: of_product(first_of(sizes, batch, dtype), batch, name_of(dtype)),
        call and (lambda variant: call(variant=variant)),
    )


def team_for(asked: tuple[str, tuple[int, ...], int, int, torch.dtype], weights: int, call: Callable[[int], Tensor]) -> int:
    """Return how many threads multiply few samples, whose product takes as long as that of one with so many weights.

    One does where to wake the others takes longer. By default there are those of `threads_for`; all are tried where that may
    pay: of fewer weights where a vector has fewer lanes. What is asked is a Work but for its threads.
    """
    first = Variant(1, 1, vector_bytes(), threads_for(weights))
    most = threads() if 64 * weights >= WORTH_TRYING * first.vector_bytes else 1
    tried = [first._replace(threads=team) for team in dict.fromkeys((first.threads, 1, most))]
    return variant_for(asked, lambda: tried, lambda variant: call(variant.threads)).threads


def first_of(sizes: Sizes, batch: int, dtype: torch.dtype) -> Variant:
    """Return the default variant of a product of so many samples.

    Few of them fill half a vector: of such halves the input's rows are shorter, and need no panels.
    """
    first = default(sizes)
    if 2 * batch * dtype.itemsize > first.vector_bytes or first.vector_bytes == 16:
        return first
    return first._replace(together=8, vector_bytes=first.vector_bytes // 2, panel_bytes=0)


def of_product(first: Variant, batch: int, dtype: str) -> list[Variant]:
    """Return the variants of a product of so many samples whose default is the first."""
    # No panels, or others, for there are first caches of 32 and of 48 KiB; wide tiles, narrow and very narrow ones.
    tried = [first._replace(panel_bytes=size) for size in (0, 2**15, 3 * 2**14)]
    tried += [first._replace(together=8), first._replace(together=8, panel_bytes=0)]
    tried += [first._replace(vectors=4), first._replace(vectors=4, panel_bytes=0)]
    tried.append(first._replace(vectors=2, together=8, panel_bytes=0))
    # Some processors are faster at half as many numbers at a time; and to wake a thread may take longer than all of the work.
    tried += [first._replace(together=8, vector_bytes=max(16, first.vector_bytes // 2)), first._replace(threads=1)]
    return different([first, *tried], batch, dtype)


def of_chain(first: Variant, batch: int, dtype: str) -> list[Variant]:
    """Return the variants of a chain's pass, whose default is the first: fewer, for to compile one takes half a second."""
    other = 2 if first.vector_bytes == 64 else 8  # of the many that are possible, those that won on some machine
    tried = [first._replace(vectors=vectors, together=together) for vectors, together in ((0, 4), (4, 4), (other, 8))]
    return different([first, *tried, first._replace(threads=1)], batch, dtype)


def different(variants: Sequence[Variant], batch: int, dtype: str) -> list[Variant]:
    """Return the variants without those that go about a batch as one before does."""
    ways = dict[Variant, Variant]()
    for variant in variants:
        vectors = variant.vectors and tiling(batch, dtype, variant.vectors, variant.vector_bytes)[0]
        ways.setdefault(variant._replace(vectors=vectors), variant)
    return list(ways.values())
