"""2:4 sparsity: of each 4 weights in a row 2 are kept, which is what a GPU's sparse tensor cores multiply."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sparse_models.errors import InputError
from sparse_models.kernels import two_four
from sparse_models.kernels.asynchronous import is_captured
from sparse_models.kernels.source import Source
from sparse_models.layers._base import MultiplyAdds, register_layer
from sparse_models.layers.masked import Masked
from sparse_models.masks import TWO_FOUR, Pattern
from sparse_models.masks.transposable import TWO_FOUR_TRANSPOSABLE

MISSING = two_four.why_absent()


@register_layer("two_four")
class TwoFour(Masked):
    """Dense weights, zero outside a 2:4 mask; on a GPU, in 16 bit, compressed and multiplied by cuSPARSELt.

    In `eval()` and without gradients the weights are compressed once, and anew when they change; else at every call, as they
    change at every step. The output's product is sparse; the input gradient's is where the transpose is 2:4, too, which
    `two_four_transposable` has; the weight gradient's is dense. Weights outside the mask must stay 0, which they do under any
    optimizer, as their gradients are. Three things change weights unseen: `values.data`, the replay of a captured training
    step, and the step of a fused optimizer whose gradients are from before: call `train()` before and `eval()` after.

    A CPU gains nothing from the structure, and the product there is that of `masked`: no instruction multiplies 2 of 4, so that
    a vector of products would first take a permutation that brings each weight its input. That is as many instructions as
    the dense product has. What a CPU can leave out is single weights: `tiled` takes a 2:4 mask like any other.
    """

    pattern: ClassVar[Pattern] = TWO_FOUR
    devices: ClassVar[tuple[str, ...]] = ("cpu", "cuda") if MISSING is None else ("cpu",)
    absent: ClassVar[Mapping[str, str]] = {} if MISSING is None else {"cuda": MISSING}
    _compressed: tuple[Tensor, Source] | None = None

    @classmethod
    def is_default_on(cls, device: str) -> bool:
        """Tell whether the default grid has the layer: where the structure can pay, that is on a GPU."""
        return cls.is_default and device != "cpu"

    @classmethod
    def dtypes_on(cls, device: str) -> tuple[str, ...]:
        """Return the number types of the layer on a device: on a GPU those that cuSPARSELt takes."""
        return two_four.DTYPES if device == "cuda" and device in cls.devices else super().dtypes_on(device)

    @classmethod
    def layout_for(cls, device: str, batch: int, *, learning: bool) -> str:
        """Return the layout that the layer prefers: a GPU's kernels take and return samples in rows."""
        return "batch-major" if device == "cuda" else super().layout_for(device, batch, learning=learning)

    def product(self, x: Tensor) -> Tensor:
        """Return x (W * M)^T + b [batch, out]; raises InputError on a GPU for x of another dtype than the weights."""
        if not on_a_gpu(self.values):
            return super().product(x)
        if x.dtype != self.values.dtype or x.device != self.values.device:
            raise InputError(
                f"{type(self).__name__}: expected an input of {self.values.dtype} on {self.values.device}, as the weights are, "
                f"got {x.dtype} on {x.device}; convert it"
            )
        if torch.is_grad_enabled():
            self.outdate()
            transposable = self.pattern is TWO_FOUR_TRANSPOSABLE
            result: Tensor = _Product.apply(x, self.values, self.bias, self.kept, transposable)  # type: ignore[no-untyped-call]
            return result
        return two_four.product(self._weights(), x, self.bias, self.out_features)

    def _weights(self) -> Tensor:
        """Return the compressed weights: kept where nothing is learned, in the memory that a captured graph may read."""
        values = self.values.detach()
        # Tensors of inference_mode count no changes, by which it would be seen that the compressed ones are out of date.
        if self.training or values.is_inference() or self.kept.is_inference():
            return two_four.compress(values)
        now = Source.of(self.kept, values)
        held, source = self._compressed or (None, None)
        if held is not None and source is not None and source.has_values_of(now):
            return held
        made = two_four.compress(values)
        if is_captured(values):
            return made  # by each replay, and not before: nobody else may take it for the weights
        if held is not None and (held.shape, held.dtype, held.device) == (made.shape, made.dtype, made.device):
            made = held.copy_(made)
        self._compressed = made, now
        return made

    def outdate(self) -> None:
        """Have weights compressed anew when they are next needed: these are about to be trained."""
        if self._compressed is not None:
            self._compressed = self._compressed[0], self._compressed[1].outdated()

    def train(self, mode: bool = True) -> "TwoFour":  # noqa: FBT001, FBT002  # as nn.Module has it
        """Set the mode, as nn.Module does; before and after a training, compressed weights are out of date."""
        if mode or self.training:
            self.outdate()
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_compressed": None}  # made anew where needed

    @property
    def multiply_adds(self) -> MultiplyAdds:
        """Multiply-adds per sample that the layer executes: on a GPU half of those of a dense product where it is sparse."""
        dense, sparse = self.values.numel(), self.values.numel() // 2
        if not on_a_gpu(self.values):
            return super().multiply_adds
        return MultiplyAdds(sparse, sparse if self.pattern is TWO_FOUR_TRANSPOSABLE else dense, dense)

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights and structure that one forward pass reads, on a GPU of those compressed."""
        held = None if self._compressed is None else self._compressed[0].nbytes
        return super().weight_bytes if held is None else held + (0 if self.bias is None else self.bias.nbytes)


@register_layer("two_four_transposable")
class TwoFourTransposable(TwoFour):
    """2:4 along rows and along columns, so that the input gradient's product is sparse, too (Hubara et al. 2021)."""

    pattern: ClassVar[Pattern] = TWO_FOUR_TRANSPOSABLE
    is_default: ClassVar[bool] = False


class _Product(torch.autograd.Function):
    """y = x W^T + b of compressed weights, dx = dy W, of those or dense, and dW dense and then masked."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, values: Tensor, bias: Tensor | None, kept: Tensor, transposable: bool  # noqa: FBT001
    ) -> Tensor:  # fmt: skip
        values = values.detach()
        ctx.save_for_backward(x, values, kept)
        ctx.transposable = transposable
        return two_four.product(two_four.compress(values), x, bias, len(values))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, values, kept = ctx.saved_tensors
        x_needed, values_needed, bias_needed, *_ = ctx.needs_input_grad
        x_grad = None
        if x_needed and ctx.transposable:
            x_grad = two_four.product(two_four.compress(values.t()), grad, None, values.shape[1])
        elif x_needed:
            x_grad = grad @ values
        return x_grad, (grad.t() @ x).mul_(kept) if values_needed else None, grad.sum(0) if bias_needed else None, None, None


def on_a_gpu(values: Tensor) -> bool:
    """Tell whether cuSPARSELt multiplies these weights; tests let a simulated one do that."""
    return values.is_cuda
