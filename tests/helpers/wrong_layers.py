"""Layers that are wrong, each in one way only."""

from typing import Any

import torch
from torch import Tensor

from sparse_models.layers.dense import dense_product
from sparse_models.layers.masked import Masked


class Inverted(Masked):
    """Keeps what the mask drops."""

    def index(self, mask: Tensor) -> None:
        super().index(~mask)


class InvertedInProductOnly(Masked):
    def product(self, x: Tensor) -> Tensor:
        return dense_product(x, self.values * (1 - self.kept), self.bias)


class WithoutBias(Masked):
    def product(self, x: Tensor) -> Tensor:
        return dense_product(x, self.values * self.kept, None)


class FrozenBias(Masked):
    def product(self, x: Tensor) -> Tensor:
        return dense_product(x, self.values * self.kept, None if self.bias is None else self.bias.detach())


class TrainsOutsideTheMask(Masked):
    """Multiplies by no mask, and shows only what is under it."""

    def product(self, x: Tensor) -> Tensor:
        return dense_product(x, self.values, self.bias)


class ScaledGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return tensor.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.factor, None


class HalfWeightGradient(Masked):
    def product(self, x: Tensor) -> Tensor:
        return dense_product(x, ScaledGradient.apply(self.values, 0.5) * self.kept, self.bias)  # type: ignore[no-untyped-call]


class HalfInputGradient(Masked):
    def product(self, x: Tensor) -> Tensor:
        return super().product(ScaledGradient.apply(x, 0.5))  # type: ignore[no-untyped-call]


class CutInputGradient(Masked):
    def product(self, x: Tensor) -> Tensor:
        return super().product(x.detach())


class ChangesItsInput(Masked):
    def product(self, x: Tensor) -> Tensor:
        output = super().product(x)
        x.data.mul_(2)
        return output


class ForgetsToMove(Masked):
    """Keeps its first mask."""

    def repack(self, mask: Tensor, tensors: list[Tensor]) -> list[Tensor]:
        return tensors


class ForgetsTheOldWeights(Masked):
    def repack(self, mask: Tensor, tensors: list[Tensor]) -> list[Tensor]:
        return [torch.zeros_like(tensor) for tensor in super().repack(mask, tensors)]


class GrowsNonZero(Masked):
    def repack(self, mask: Tensor, tensors: list[Tensor]) -> list[Tensor]:
        return [tensor + 1e-3 * self.kept for tensor in super().repack(mask, tensors)]


class MultipliesByItsFirstMask(Masked):
    """Moves what it holds, and goes on computing with the structure it was built with."""

    def index(self, mask: Tensor) -> None:
        super().index(mask)
        if not hasattr(self, "first"):
            self.first = self.kept

    def product(self, x: Tensor) -> Tensor:
        return dense_product(x, self.values * self.first, self.bias)


class NotANumber(Masked):
    def product(self, x: Tensor) -> Tensor:
        return super().product(x) * torch.nan


class OneEntryWrong(Masked):
    """Right but for one output of one sample."""

    def product(self, x: Tensor) -> Tensor:
        output = super().product(x)
        wrong = torch.zeros_like(output)
        wrong[-1, -1] = 0.1
        return output + wrong


class Transposed(Masked):
    def product(self, x: Tensor) -> Tensor:
        return super().product(x).t()


class WrongWithoutGradients(Masked):
    """Right in training, wrong in inference."""

    def product(self, x: Tensor) -> Tensor:
        return super().product(x) * (1 if torch.is_grad_enabled() else 2)


class NeedsAnInputGradient(Masked):
    """Trains its weights only where its input asks for a gradient too."""

    def product(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            return super().product(x)
        return dense_product(x, (self.values * self.kept).detach(), self.bias)


class IgnoresStrides(Masked):
    """Reads its input as if it were batch-major whatever its strides."""

    def product(self, x: Tensor) -> Tensor:
        return super().product(x if x.is_contiguous() else x.t().reshape(x.shape))


class IgnoresStridesOfTheGradient(Masked):
    def product(self, x: Tensor) -> Tensor:
        return BatchMajorGradient.apply(super().product(x))  # type: ignore[no-untyped-call, no-any-return]


class BatchMajorGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        return y.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad if grad.is_contiguous() else grad.t().reshape(grad.shape)


class WrongInInferenceOnly(Masked):
    """Right wherever something is to be learned."""

    def product(self, x: Tensor) -> Tensor:
        return super().product(x) if self.training else super().product(x) * 1.01


class KeepsItsFirstWeightsForInference(Masked):
    first: Tensor | None = None

    def product(self, x: Tensor) -> Tensor:
        if self.training:
            return super().product(x)
        self.first = self.to_dense() if self.first is None else self.first
        return dense_product(x, self.first, self.bias)


class AnotherDtype(Masked):
    def product(self, x: Tensor) -> Tensor:
        return super().product(x).double() if x.dtype == torch.float32 else super().product(x).float()


class WrongInItsLastTile(Masked):
    """Right but for the outputs that do not fill a tile of 64, or of less."""

    def product(self, x: Tensor) -> Tensor:
        return super().product(x) + 0.1 * (torch.arange(self.out_features) == self.out_features - 1)


class WrongInOneBlock(Masked):
    """Right but for one block of 64 outputs."""

    def product(self, x: Tensor) -> Tensor:
        return super().product(x) + 0.1 * in_middle_block(self.out_features)


class WrongAtOnePosition(Masked):
    """Right but for one lane of each vector of 64 outputs."""

    def product(self, x: Tensor) -> Tensor:
        return super().product(x) + 0.1 * (torch.arange(self.out_features) % 64 == 3)


class TrainsOneBlockOfColumnsWrongly(Masked):
    """Right but for half a gradient of the weights of one block of 64 inputs."""

    def product(self, x: Tensor) -> Tensor:
        half: Tensor = ScaledGradient.apply(self.values, 0.5)  # type: ignore[no-untyped-call]
        values = torch.where(in_middle_block(self.in_features), half, self.values)
        return dense_product(x, values * self.kept, self.bias)


class HalfInputGradientInOneBlock(Masked):
    def product(self, x: Tensor) -> Tensor:
        half: Tensor = ScaledGradient.apply(x, 0.5)  # type: ignore[no-untyped-call]
        return super().product(torch.where(in_middle_block(self.in_features), half, x))


class KeepsOneWeightOutside(Masked):
    """Shows one weight outside its mask, anywhere."""

    def unpack(self, values: Tensor) -> Tensor:
        place = int((self.kept == 0).flatten().nonzero()[len(self.kept) // 2])
        return super().unpack(values).flatten().index_fill(0, torch.tensor([place]), 1e-3).view_as(self.kept)


def in_middle_block(size: int) -> Tensor:
    return torch.arange(size) // 64 == size // 2 // 64


WRONG = [
    value for value in list(vars().values()) if isinstance(value, type) and issubclass(value, Masked) and value is not Masked
]
