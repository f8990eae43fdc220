"""The mean cross-entropy of feature-major logits and its slope on a GPU, by one kernel: PyTorch's operations are eight."""

import torch
from torch import Tensor

from sparse_models.kernels.cuda import _compile
from sparse_models.kernels.cuda._compile import Launch
from sparse_models.kernels.cuda._tiling import NAMES

THREADS = 128
SHARED_BYTES = 8 * THREADS // 32
LEFT_OUT = -100  # as a label: PyTorch's ignore_index
COUNTED = 2**13  # labels that each block still counts itself; for more, PyTorch's two kernels take less time, by estimate


def cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean loss of logits [classes, batch], both at least 1, and labels [batch], int64, and its slope by the logits.

    Sums are in float32, in an order that is always the same. As PyTorch has it, samples whose label is LEFT_OUT have no part in
    the mean and a slope of 0, and where there is no other the loss is NaN. Of another label that is no class it is NaN, too.
    """
    classes, batch = logits.shape
    slope, blocks = torch.empty_like(logits), -(-batch // THREADS)
    parts = logits.new_empty(blocks, dtype=torch.float32)
    counted = None if batch <= COUNTED else (labels != LEFT_OUT).sum(dtype=torch.int32)
    macros = (("NUMBER", NAMES[logits.dtype]), ("THREADS", THREADS))
    tensors = (logits, labels.contiguous(), counted, slope, parts)
    _compile.run("cross_entropy.cu", macros, Launch((blocks, 1), THREADS, SHARED_BYTES), *tensors, classes, batch, LEFT_OUT)
    return parts.sum().to(logits.dtype), slope
