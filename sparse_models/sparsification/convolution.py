"""A convolution as a sparse layer over the patches of its input."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from sparse_models.errors import InputError, checked
from sparse_models.layers import SparseLinear
from sparse_models.linear import as_linear, check_movable, check_plain, mask_of, parameter_of

Pair = tuple[int, int]


class SparseConv2d(nn.Module):
    """nn.Conv2d by unfolding: a sparse layer [out, in * height * width] over all patches; a 1x1 kernel needs no unfolding."""

    def __init__(
        self, linear: SparseLinear, in_channels: int, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair
    ) -> None:
        """Convolve by a layer whose inputs are in_channels * kernel height * kernel width, in this order."""
        super().__init__()
        self.linear, self.in_channels, self.kernel_size = linear, in_channels, kernel_size
        self.stride, self.padding, self.dilation = stride, padding, dilation

    @classmethod
    @checked
    def from_conv(cls, layer: type[SparseLinear], conv: nn.Conv2d, mask: Tensor | None = None) -> "SparseConv2d":
        """Build from a copy of an nn.Conv2d and a mask [out, in, height, width] as `from_linear` takes one.

        Raises InputError as that does, and for groups, padding with anything but zeros, or with more on one side.
        """
        check_conv(conv)
        weight = parameter_of(conv)
        flat = as_linear(nn.Parameter(weight.detach().flatten(1), weight.requires_grad), conv.bias).train(conv.training)
        linear = layer.from_linear(flat, mask_of(conv, mask).flatten(1))
        pairs = (conv.kernel_size, conv.stride, _padding(conv), conv.dilation)
        return cls(linear, conv.in_channels, *pairs).train(conv.training)  # type: ignore[arg-type]  # torch types them int or pair

    def to_conv(self) -> nn.Conv2d:
        """Return a dense nn.Conv2d with a copy of the weights, 0 outside the mask; raises InputError for hooks."""
        check_movable(self)
        flat = self.linear.to_linear()
        options: dict[str, Any] = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}
        conv = nn.Conv2d(
            self.in_channels, flat.out_features, self.kernel_size, bias=flat.bias is not None, device="meta", **options
        )
        conv.weight = nn.Parameter(flat.weight.detach().view(self.weight_shape), flat.weight.requires_grad)
        if flat.bias is not None:
            conv.bias = flat.bias
        return conv.train(self.training)

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """The shape of the dense convolution's weight."""
        return (self.linear.out_features, self.in_channels, *self.kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output [batch, out, height, width], or without batch, for x [batch, in, height, width], likewise."""
        if x.dim() == 3:
            return self.forward(x[None])[0]
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise InputError(
                f"expected an input of shape [batch, {self.in_channels}, height, width], got {list(x.shape)}; reshape it"
            )
        sizes = zip(x.shape[2:], self.kernel_size, self.stride, self.padding, self.dilation, strict=True)
        height, width = ((size + 2 * pad - gap * (kernel - 1) - 1) // step + 1 for size, kernel, step, pad, gap in sizes)
        if min(height, width) < 1:
            raise InputError(f"expected an input that the kernel {self.kernel_size} fits in, got {list(x.shape)}; pad it")
        # Features first, so that layers over feature-major kernels turn nothing.
        patches = self._patches(x).transpose(0, 1).reshape(self.linear.in_features, -1)
        result: Tensor = self.linear(patches.t()).t().reshape(self.linear.out_features, len(x), height, width)
        # As dense convolutions give it, for what comes after may call `view`.
        return result.transpose(0, 1).contiguous()

    def _patches(self, x: Tensor) -> Tensor:
        """Return the patch of each output [batch, in * kernel, height * width], zeros around x."""
        if self.kernel_size == (1, 1):
            (down, right), (top, left) = self.stride, self.padding
            padded = functional.pad(x, [left, left, top, top]) if top or left else x
            return padded[:, :, ::down, ::right].flatten(2)
        unfolded: Tensor = functional.unfold(x, self.kernel_size, self.dilation, self.padding, self.stride)
        return unfolded

    def extra_repr(self) -> str:
        """Return what it does to patches, as printed by PyTorch."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, dilation={self.dilation}"


def check_conv(conv: nn.Conv2d) -> None:
    """Raise InputError for a convolution that is no single product over patches of an input with zeros around."""
    check_plain(conv, nn.Conv2d)
    check_movable(conv)
    if conv.groups != 1 or conv.padding_mode != "zeros":
        raise InputError(
            f"expected a convolution of one group padded with zeros, got groups={conv.groups}, padding_mode="
            f"{conv.padding_mode!r}; leave it dense"
        )
    _padding(conv)


def _padding(conv: nn.Conv2d) -> Pair:
    """Return the zeros before and after the rows and columns of the input."""
    left, right, top, bottom = conv._reversed_padding_repeated_twice  # noqa: SLF001  # in numbers, whatever it was given as
    if (left, top) != (right, bottom):
        raise InputError("expected as much padding before as after the input, got more after; take a kernel of odd size")
    return top, left
