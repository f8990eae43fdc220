"""Layers over kernels that see addresses alone: what they refuse to be given, and the loss of a chain of them in one pass."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.compiler import is_compiling

from sparse_models.errors import InputError
from sparse_models.kernels.link import Link
from sparse_models.layers._base import SparseLinear
from sparse_models.layers._feature_major import as_operator
from sparse_models.layers._feature_major.both_ways import CsrBothWays
from sparse_models.layers._feature_major.chain_loss import ChainCrossEntropy
from sparse_models.layers._feature_major.held_output import HeldOutput
from sparse_models.layers._feature_major.products import Products, ReadyProducts, is_plain

STEPPED = (torch.float32, torch.float64)  # what a whole step is taken in; 16 bit is computed with in float32
MOST_SIZES = 8  # of batches, of which something is held
SHORT = 2**15  # up to so many rows or columns 16 bits number them


class OwnKernels(CsrBothWays):
    """A layer whose products are kernels of our own."""

    has_variants: ClassVar[bool] = True
    _held: HeldOutput | None = None  # of the chain that it is the first of
    # By the number of samples, and whether something is learned; None for a size that was seen once.
    _ready: Mapping[tuple[int, bool], ReadyProducts | None] = MappingProxyType({})

    def index_units(self, units: Tensor) -> None:
        """Store the structure of the kept units [grid]; raises InputError where 32-bit indices do not hold it."""
        self._ready = {}  # which holds the index that was there
        super().index_units(units)
        if self.columns.dtype not in (torch.int32, torch.int16):
            raise InputError(
                f"{type(self).__name__}: expected fewer than {2**31} rows, columns and non-zeros, got {units.numel()} weights "
                f"with {self.columns.numel()} non-zeros; split the layer"
            )
        # Nothing that processes send one another numbers by, gloo or NCCL, knows whole numbers of 16 bits.
        longest = 0 if torch.distributed.is_available() and torch.distributed.is_initialized() else SHORT
        self.columns, self.rows = (
            part.short() if size <= longest else part
            for part, size in zip((self.columns, self.rows), reversed(units.shape), strict=True)
        )

    @classmethod
    def device_of(cls, x: Tensor) -> str:
        """Return where x is, and so which kernels multiply it."""
        return x.device.type

    @property
    def values_shape(self) -> tuple[int, ...]:
        """The shape that the kernels take the values to be of."""
        columns = self._buffers["columns"]
        assert columns is not None
        return (columns.numel(),)

    def at_once(self, x: Tensor) -> Tensor | None:  # noqa: ARG002
        """Return the product where it is known beforehand that x and all that is held can be multiplied; None elsewhere."""
        return None

    def multiplied(self, x: Tensor) -> Tensor:
        """Return x W^T + b [batch, out], feature-major, for x that the kernels take."""
        if torch.is_grad_enabled() or self.device_of(x) != "cpu":
            return super().product(x)
        return self.products_for(x).product(x, self.own("values"), self.own("bias"))

    def product(self, x: Tensor) -> Tensor:
        """Return x W^T + b [batch, out], feature-major; raises InputError for x of another dtype or device than the weights."""
        known, is_graph = self.at_once(x), torch.is_grad_enabled()
        if known is not None:
            return known
        ready = self._ready.get((x.shape[0], is_graph or self.training))
        if ready is not None:
            values, bias = self.own("values"), self.own("bias")
            if ready.are_for(self._buffers.values(), values, bias, x):
                return self.learning_product(x, ready) if is_graph else ready.product(x, values, bias)
        if self.takes(x):
            return self.multiplied(x)
        name, values, bias = type(self).__name__, self.own("values"), self.own("bias")
        if x.dtype != values.dtype and x.is_floating_point() and torch.is_autocast_enabled(x.device.type):
            return self.product(x.to(values.dtype))  # as autocast does with what runs in float32 alone
        if x.dtype != values.dtype or x.device != values.device or not self.has_kernels_for(x):
            able = "; ".join(f"{' or '.join(self.dtypes_on(device))} on {device}" for device in self.devices)
            if (x.dtype, x.device) == (values.dtype, values.device):
                raise InputError(f"{name}: expected weights and an input of {able}, got {x.dtype} on {x.device}; convert both")
            raise InputError(
                f"{name}: expected an input of {able}, as the weights are ({values.dtype} on "
                f"{values.device}), got {x.dtype} on {x.device}; convert it"
            )
        fits = bias is None or (bias.shape, bias.dtype, bias.device) == ((self.out_features,), x.dtype, x.device)
        if fits and values.shape == self.values_shape and self.device_of(x) == "cpu":
            return as_operator.linear(self, x)
        held = "no bias" if bias is None else f"a bias of shape {list(bias.shape)}, {bias.dtype}"
        raise InputError(
            f"{name}: expected values of shape {list(self.values_shape)}, a bias of shape [{self.out_features}] or none, "
            f"contiguous, of one dtype, and an input that is no negated view; got values of shape {list(values.shape)}, "
            f"{held}; copy them"
        )

    def traced_product(self, x: Tensor) -> Tensor:
        """Return what `product` does as one operator; on a GPU code that is compiled calls that, and does not look into it.

        What is compiled would not see that weights have changed since a copy of them was made.
        """
        if self.device_of(x) == "cpu":
            return super().traced_product(x)
        result: Tensor = torch.compiler.disable(self.product)(x)
        return result

    @classmethod
    def has_kernels_for(cls, x: Tensor) -> bool:
        """Tell whether there are kernels for x's dtype and device."""
        return str(x.dtype).removeprefix("torch.") in cls.dtypes_on(cls.device_of(x))

    def takes(self, x: Tensor) -> bool:
        """Tell whether the kernels, which see addresses alone, read x as it is meant."""
        return self.has_kernels_for(x) and not x.is_neg() and self.has_plain(x)

    def has_plain(self, x: Tensor) -> bool:
        """Tell whether the kernels, which see addresses alone, read values and bias as they are meant, and as they read x."""
        values, bias = self.own("values"), self.own("bias")
        kept = [(values, self.values_shape), *([] if bias is None else [(bias, (self.out_features,))])]
        return all(one.device == x.device and is_plain(one, shape, x.dtype) for one, shape in kept)

    def products_for(self, x: Tensor) -> Products:
        """Return the layer's products for x [batch, in]: calls that are ready from the second time that there are as many."""
        products = super().products_for(x)
        if self.device_of(x) != "cpu" or x.dtype not in STEPPED or is_compiling():
            return products
        key, known = (len(x), torch.is_grad_enabled() or self.training), self._ready
        made = ReadyProducts(products, [*self._buffers.values()], self.values_shape, x) if key in known else None
        kept = known if key in known or len(known) < MOST_SIZES else {}
        self._ready = {**kept, key: made}  # another, for threads may look into this one
        return made or products

    @classmethod
    def adds_nothing(cls) -> bool:
        """Tell whether a subclass leaves what the kernels give as it is."""
        return cls.forward is SparseLinear.forward and cls.product is OwnKernels.product

    @classmethod
    def chain_for_step(cls, layers: Sequence[SparseLinear], x: Tensor) -> list[Link] | None:
        """Return a chain of such layers as the kernel of a whole training step takes them, on a CPU: see base class."""
        return cls.linked(layers, x) if cls.device_of(x) == "cpu" and x.dtype in STEPPED else None

    @classmethod
    def chain_output(cls, layers: Sequence[SparseLinear], x: Tensor) -> Tensor | None:
        """Return what a chain of such layers makes of x [batch, in], on a CPU and without a graph: see base class."""
        first = layers[0]
        if torch.is_grad_enabled() or not isinstance(first, OwnKernels) or any(layer.is_watched for layer in layers):
            return None
        held = first._held  # noqa: SLF001  # of its own class
        if held is None or not held.is_current(layers):
            links = None if x.requires_grad else cls.chain_for_step(layers, x)
            fits = links is not None and len(links) > 1
            held = first._held = HeldOutput(layers, links) if links is not None and fits else None  # noqa: SLF001
        return None if held is None else held.of(x)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_held": None, "_ready": {}}  # made anew where needed

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state | {"_ready": {}})  # type: ignore[no-untyped-call]  # None where saved by an earlier version

    @classmethod
    def linked(cls, layers: Sequence[SparseLinear], x: Tensor) -> list[Link] | None:
        """Return a chain of such layers as a fused kernel takes them, if they fit one another and x [batch, in]."""
        chained = [layer for layer in layers if isinstance(layer, OwnKernels) and layer.adds_nothing() and layer.takes(x)]
        sizes = [chained[0].in_features, *(layer.out_features for layer in chained)] if chained else []
        fits = len(chained) == len(layers) and [layer.in_features for layer in chained] == sizes[:-1]
        fits = fits and len({type(structure) for layer in chained for structure in layer.structures}) == 1
        # Whatever else is unusual, layer by layer says so, or knows what to do with it.
        plain = fits and x.dim() == 2 and x.shape[1] == sizes[0] and len(x) > 0 and not x.requires_grad
        return [layer.link() for layer in chained] if plain else None

    @classmethod
    def chain_cross_entropy(cls, layers: Sequence[SparseLinear], x: Tensor, labels: Tensor) -> Tensor | None:
        """Return the mean cross-entropy of a chain of such layers, whose gradients come from the same pass; see base class."""
        if (labels.shape, labels.dtype, labels.device) != (x.shape[:1], torch.int64, x.device):
            return None
        links = cls.linked(layers, x)
        if links is None:
            return None
        if cls.device_of(x) == "cpu":  # elsewhere it would wait for the device, whose kernel makes the loss NaN
            lowest, highest = labels.aminmax()
            if int(lowest) < 0 or int(highest) >= layers[-1].out_features:
                return None
        parameters = [*(layer.values for layer in layers), *(layer.bias for layer in layers)]
        result: Tensor = ChainCrossEntropy.apply(links, x, labels, *parameters)  # type: ignore[no-untyped-call]
        return result

    def link(self) -> Link:
        """Return the layer as a fused kernel takes it."""
        bias = self.own("bias")
        return Link(*self.structures, self.own("values").detach(), self.transposition, None if bias is None else bias.detach())
