"""Values in the transpose's order on a GPU, by a kernel that the one which needs them overlaps."""

import torch
from torch import Tensor

from sparse_models.kernels.cuda import _compile
from sparse_models.kernels.cuda._compile import Launch
from sparse_models.kernels.cuda._tiling import NAMES

THREADS = 256
EACH = 4  # numbers of a thread
MOST = 2**31 - THREADS * EACH  # places that 32 bits count


def gathered(values: Tensor, order: Tensor) -> Tensor:
    """Return values[order] [nnz], for places of 32 bits; a kernel launched next, overlapped, may begin before it has ended."""
    count = len(order)
    if order.dtype != torch.int32 or not 0 < count < MOST or values.dtype not in NAMES:
        return values.index_select(0, order)
    result = values.new_empty(count)
    macros = (("NUMBER", NAMES[values.dtype]), ("THREADS", THREADS), ("EACH", EACH))
    launch = Launch((-(-count // (THREADS * EACH)), 1), THREADS)
    _compile.run("gathered.cu", macros, launch, values.contiguous(), order.contiguous(), result, count)
    return result
