"""The loss of a chain of sparse layers as autograd takes it, its gradients found in the same pass."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sparse_models.kernels import chain
from sparse_models.kernels.asynchronous import is_asynchronous
from sparse_models.kernels.link import Link


class ChainCrossEntropy(torch.autograd.Function):
    """Loss and gradients in one pass, so that there is nothing left to do on the way back."""

    @staticmethod
    def forward(ctx: Any, links: list[Link], x: Tensor, labels: Tensor, *parameters: Tensor | None) -> Tensor:
        # Layers in 16 bit are computed with in float32 on a CPU, and autograd rounds each gradient to its parameter's type.
        found = chain.gradients(links, x.to(links[0].values.dtype), labels)
        ctx.gradients = [
            None if parameter is None else gradient
            for parameter, gradient in zip(parameters, [*found.values, *found.biases], strict=True)
        ]
        return found.loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("expected one backward pass through a fused step, got a second; use fused=False")
        # Handed over, so that the parameters take them as they are and copy nothing.
        gradients, ctx.gradients = ctx.gradients, None
        if is_asynchronous(grad):  # to look at the factor would be to wait for the device
            held = [gradient for gradient in gradients if gradient is not None]
            torch._foreach_mul_(held, grad)  # one launch for all, as PyTorch's optimizers have it
            return None, None, None, *gradients
        # In a training the loss is what is differentiated, and its own gradient 1: six small products less.
        factor = float(grad)
        scaled = (gradient if gradient is None or factor == 1 else gradient * factor for gradient in gradients)
        return None, None, None, *scaled
