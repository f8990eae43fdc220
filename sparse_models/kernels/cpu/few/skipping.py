"""A layer's weights by their columns, for products that skip inputs which are zero: kept beside it, made anew on changes."""

from collections.abc import Mapping

from torch import Tensor

from sparse_models.kernels.cpu._compile import vector_bytes
from sparse_models.kernels.cpu.few.columns import Columns, is_possible, pack
from sparse_models.kernels.cpu.few.frozen import Ready, product
from sparse_models.kernels.source import Source

# Weights that are there, of all, up to which a bit for each of all is faster than all of them, as a rule, by the bytes of the
# processor's vectors: of a matrix that caches do not hold, but for float32 by AVX-512 of any. Measured on a Zen 5 server.
DENSEST = {64: 0.3, 32: 0.2}
LARGE = 2**23  # weights


def is_better_sparse(weight: Tensor) -> bool:
    """Tell whether columns of a weight [out, in] are to hold only what is not zero."""
    by_avx512 = vector_bytes() == 64
    if not is_possible(weight.dtype) or (weight.numel() < LARGE and not (by_avx512 and weight.itemsize == 4)):
        return False
    return int(weight.count_nonzero()) <= DENSEST[vector_bytes()] * weight.numel()


class _ReadyColumns(Ready):
    """A product with all that is known before it, by as many threads as the zeros among the last inputs are worth."""

    packed: Columns

    def product(self, index: Tensor | None, values: Tensor | None, bias: Tensor | None, x: Tensor) -> Tensor | None:
        """Return x [batch, in] times the weights, plus bias: [batch, out]; None where anything is not as it was."""
        self.team = self.packed.team
        return super().product(index, values, bias, x)


class Skipping:
    """A copy of the weights by columns, made by the first few samples that want it."""

    def __init__(self) -> None:
        """Begin with none."""
        self.held: tuple[Columns, Source] | None = None
        self.ready: dict[int, Ready] = {}

    def outdate(self) -> None:
        """Have the copy made anew from the next weights: optimizers of one kernel change weights without counting it."""
        self.held, self.ready = None, {}

    def product(self, kept: Tensor, values: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return x [batch, in] times the `kept` of the values [out, in] transposed, plus bias [out]: [batch, out]."""
        now = Source.of(kept, values.detach())
        if self.held is None or not self.held[1].has_values_of(now):
            weight = (values * kept).detach()
            self.held, self.ready = (pack(weight, sparse=is_better_sparse(weight)), now), {}
        packed = self.held[0]
        if bias is None or (bias.dtype == packed.room(0).dtype and bias.is_contiguous()):  # else the kernel is given a copy
            self.ready[len(x)] = _ReadyColumns(packed, (kept, values, bias), x, packed.team)
        return product(packed, x, bias, packed.team)

    def again(self, kept: Tensor | None, parameters: Mapping[str, Tensor | None], x: Tensor) -> Tensor | None:
        """Return what `product` does for a layer's own tensors where nothing has changed since its last call, or None."""
        ready = self.ready.get(x.shape[0])
        return None if ready is None else ready.product(kept, parameters.get("values"), parameters.get("bias"), x)

    @property
    def share_read(self) -> float:
        """The share of the columns that the last product read; 1 before the first."""
        return 1.0 if self.held is None else self.held[0].seen[0] / self.held[0].width

    @property
    def bytes_read(self) -> int | None:
        """The bytes of weights that the last product read; None where there is no copy."""
        return None if self.held is None else self.held[0].bytes_read
