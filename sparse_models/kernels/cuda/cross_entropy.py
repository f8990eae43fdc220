"""The mean cross-entropy of feature-major logits and its slope on a GPU, by one kernel: PyTorch's operations are eight."""

import torch
from torch import Tensor

from sparse_models.kernels.cuda import _compile
from sparse_models.kernels.cuda._compile import Launch
from sparse_models.kernels.cuda._tiling import NAMES

THREADS = 128


def cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean loss of logits [classes, batch], both at least 1, and labels [batch], int64, and its slope by the logits.

    Sums are in float32, in an order that is always the same. Of a label that is no class the loss is NaN.
    """
    classes, batch = logits.shape
    slope, blocks = torch.empty_like(logits), -(-batch // THREADS)
    parts = logits.new_empty(blocks, dtype=torch.float32)
    macros = (("NUMBER", NAMES[logits.dtype]), ("THREADS", THREADS))
    tensors = (logits, labels.contiguous(), slope, parts)
    _compile.run("cross_entropy.cu", macros, Launch((blocks, 1), THREADS), *tensors, classes, batch)
    return parts.sum().to(logits.dtype), slope
