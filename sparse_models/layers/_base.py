"""What every sparse layer is: y = x (W * M)^T + b with a fixed number of stored weights."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from sparse_models.errors import InputError
from sparse_models.kernels.asynchronous import is_captured, refill
from sparse_models.kernels.link import Link
from sparse_models.layers._checks import LIVING, check_mask, check_move, check_own, check_weight
from sparse_models.linear import Convertible, is_traced, is_transformed
from sparse_models.masks import UNSTRUCTURED, Pattern
from sparse_models.table import Table

FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT = range(3)  # the three products of a step


class MultiplyAdds(NamedTuple):
    """Multiply-adds per sample of a layer's three products."""

    forward: int
    input_gradient: int
    weight_gradient: int


class SparseLinear(Convertible):
    """A linear layer of which only the weights under a mask exist.

    A layer is a subclass in a file of its own with `@register_layer(name)` and four methods: `index`, `pack`, `unpack`
    and `product`. Everything else (state, moving masks, gate, tests, timing, tables) follows from these.
    """

    pattern: ClassVar[Pattern] = UNSTRUCTURED
    devices: ClassVar[tuple[str, ...]] = ("cpu", "cuda")
    dtypes: ClassVar[tuple[str, ...]] = ("float32", "float64")
    # The strides of [batch, features] activations that the layer prefers: "batch-major", "feature-major" or "any".
    layout: ClassVar[str] = "any"
    skips_zeros: ClassVar[bool] = False  # whether inputs that are zero save it time
    is_indifferent: ClassVar[bool] = False  # whether it takes the same time at every sparsity
    optional: ClassVar[bool] = False  # whether it is another library's, and is run only when asked for by name
    # Whether the default grid has it; else it is timed when asked for by name, and in the full grid.
    is_default: ClassVar[bool] = True
    has_variants: ClassVar[bool] = False  # whether the machine decides which of its kernels is fastest
    absent: ClassVar[Mapping[str, str]] = {}  # what is missing for a device that it would run on, with what to install

    _nnz_as_set: int | None = None

    def __new__(cls, *_: Any, **__: Any) -> Any:
        """Note that there is one more layer, built, copied or loaded, that may come to share memory with others."""
        layer = super().__new__(cls)
        LIVING[id(layer)] = layer
        return layer

    def __init__(self, weight: Tensor, mask: Tensor, bias: Tensor | None = None) -> None:
        """Build from weight [out, in], mask [out, in] (True = kept) and bias [out] or None.

        Raises InputError for other shapes, NaN, a mask outside the pattern, or a device or dtype the layer does not run on.
        """
        super().__init__()
        check_weight(self, weight, bias)
        self.out_features, self.in_features = weight.shape
        check_mask(self, mask, weight.device)
        kept = torch.where(mask, weight.detach(), 0.0).contiguous()
        self.values = nn.Parameter(kept)  # so that `index` can ask for device and dtype
        self.index(mask)
        self.values = nn.Parameter(self.pack(kept))
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())

    @classmethod
    def dtypes_on(cls, device: str) -> tuple[str, ...]:
        """Return the number types that the layer runs in on a device, as "cpu"; none where it does not run there."""
        return cls.dtypes if device in cls.devices else ()

    @classmethod
    def is_default_on(cls, device: str) -> bool:  # noqa: ARG003
        """Tell whether the default grid has the layer on a device, as "cpu"; override where devices differ."""
        return cls.is_default

    @classmethod
    def layout_for(cls, device: str, batch: int, *, learning: bool) -> str:  # noqa: ARG003
        """Return the layout that the layer prefers for so many samples; override where it is not always the same."""
        return cls.layout

    def index(self, mask: Tensor) -> None:
        """Store, as buffers, the structure that `mask` [out, in] needs."""
        raise NotImplementedError

    def pack(self, dense: Tensor) -> Tensor:
        """Return the entries of `dense` [out, in] under the mask, as a new tensor in the shape of `values`."""
        raise NotImplementedError

    def unpack(self, values: Tensor) -> Tensor:
        """Return `values` as a dense [out, in] tensor with zeros outside the mask: the inverse of `pack`."""
        raise NotImplementedError

    def product(self, x: Tensor) -> Tensor:
        """Return x (W * M)^T + b [batch, out] for x [batch, in]."""
        raise NotImplementedError

    def traced_product(self, x: Tensor) -> Tensor:
        """Return what `product` does for x [batch, in] while it is traced; override where that cannot be looked into."""
        return self.product(x)

    @classmethod
    def chain_cross_entropy(cls, layers: Sequence["SparseLinear"], x: Tensor, labels: Tensor) -> Tensor | None:  # noqa: ARG003
        """Return the mean cross-entropy of `layers` with ReLU between them; None without a shorter way than layer by layer."""
        return None

    @classmethod
    def chain_for_step(cls, layers: Sequence["SparseLinear"], x: Tensor) -> list[Link] | None:  # noqa: ARG003
        """Return `layers` as a CPU's kernel of a whole training step takes them for inputs like x; None without one."""
        return None

    @classmethod
    def chain_output(cls, layers: Sequence["SparseLinear"], x: Tensor) -> Tensor | None:  # noqa: ARG003
        """Return what `layers` with ReLU between them make of x [batch, in]: [batch, out], with its graph.

        None says that there is no shorter way than layer by layer, which also is what hooks on single layers wait for.
        """
        return None

    @property
    def mask(self) -> Tensor:
        """The mask [out, in], True = kept."""
        return self.unpack(torch.ones_like(self.values)) != 0

    @property
    def nnz(self) -> int:
        """The number of kept weights."""
        return int(self.mask.sum())

    @property
    def nnz_as_set(self) -> int:
        """The number of kept weights as counted when the mask was last set: a GPU is asked for it only once."""
        if self._nnz_as_set is None:
            self._nnz_as_set = self.nnz
        return self._nnz_as_set

    @property
    def multiply_adds(self) -> MultiplyAdds:
        """Multiply-adds per sample that the layer executes; override where a product touches more than the non-zeros."""
        return MultiplyAdds(self.nnz, self.nnz, self.nnz)

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights and structure that one forward pass reads; override where it does not read all that is stored."""
        return sum(tensor.nbytes for tensor in (*self.parameters(), *self.buffers()))

    def tile_bytes(self, product: int, batch: int) -> int | None:  # noqa: ARG002
        """Return the bytes that a product (FORWARD, INPUT_GRADIENT or WEIGHT_GRADIENT) reads over and over from a cache.

        They are what bounds it (sparse_models.kernels.cpu.bounds.roofline); None where nothing is known of the kernel.
        """
        return None

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output [..., out] for x [..., in], in any strides; raises InputError for another last size."""
        if x.dim() == 2 and x.shape[1] == self.in_features:
            if not is_traced(x):
                return self.product(x)
            if not is_transformed():
                return self.traced_product(x)
            # What is made while torch makes a function functional can only be written to by what is so, too.
            one = torch.ones((), dtype=self.values.dtype, device=self.values.device)
            return functional.linear(x, self.unpack(self.values * one), self.bias)
        if x.is_nested:
            raise InputError(f"expected an input of shape [..., {self.in_features}], got a nested one; pad or unbind it")
        if x.dim() == 0 or x.shape[-1] != self.in_features:
            raise InputError(f"expected an input of shape [..., {self.in_features}], got {list(x.shape)}; reshape it")
        return self.forward(x.reshape(-1, self.in_features)).reshape(*x.shape[:-1], self.out_features)

    def to_dense(self) -> Tensor:
        """Return the weight [out, in] with exact zeros outside the mask."""
        return self.unpack(self.values.detach())

    def set_mask(self, mask: Tensor) -> None:
        """Move to another mask [out, in]: weights under both keep their value, grown weights start at 0.

        The gradient is dropped, and optimizer state does not follow: `sparse_models.updates.move_mask` moves both. With
        another number of non-zeros, `values` may change its shape, so a graph built before cannot be used after.
        """
        self.move(mask)

    @torch.no_grad()
    def move(
        self, mask: Tensor, moments: Sequence[Tensor] = (), *, nnz: int | None = None, in_place: bool = False, ask: bool = True
    ) -> list[Tensor]:
        """Move to another mask [out, in], and return `moments`, tensors in the shape of `values`, moved likewise.

        `nnz` is how many weights `mask` keeps, where that is known, as by an update rule, so that a GPU is not asked. With
        `in_place`, and always while a CUDA graph is captured, values, structure and moments stay where they are in memory,
        which takes a mask that keeps as many weights as before. Raises InputError, with `ask`, for another number, for a mask
        that the layer cannot hold, and for values that are another layer's too.
        """
        in_place = in_place or is_captured(self.values)
        if ask:
            nnz = check_move(self, mask, nnz, in_place=in_place)
            check_own({self: moments}, in_place=in_place)
        self._nnz_as_set = nnz
        held = dict(self._buffers) if in_place else {}  # else the old structure is let go of as the new one is made
        values, *moved = self.repack(mask, [self.values.detach(), *moments])
        if in_place:
            self._refill(held, [*moments], values, moved)
            return [*moments]
        # New tensors, and not the old ones refilled: a graph of autograd holds on to those for its backward pass.
        self.hold(values)
        self.values.grad = None  # it belongs to the old structure
        return moved

    def _refill(self, held: dict[str, Tensor | None], moments: list[Tensor], values: Tensor, moved: list[Tensor]) -> None:
        """Copy what a move made into the memory that was there before; autograd sees it, and refuses older graphs."""
        made = {name: new for name, new in self._buffers.items() if new is not None and new is not held[name]}
        old = [buffer for name, buffer in held.items() if name in made and buffer is not None]
        refill([*old, self.values.detach(), *moments], [*made.values(), values, *moved])
        self._buffers.update({name: held[name] for name in made})
        if self.values.grad is not None:
            self.values.grad.zero_()  # it belongs to the old structure, and its memory may be a captured step's

    def repack(self, mask: Tensor, tensors: list[Tensor]) -> list[Tensor]:
        """Call `index(mask)` and return `tensors` in its structure, 0 where grown; override where there is a shorter way."""
        dense = [self.unpack(tensor) for tensor in tensors]
        self.index(mask)
        return [self.pack(tensor) for tensor in dense]

    def restructure(self, saved: Mapping[str, Tensor]) -> None:  # noqa: ARG002
        """Make room for a saved state of another mask; override where values have no fixed shape."""
        self._nnz_as_set = None

    def extra_repr(self) -> str:
        """Return the sizes and the number of kept weights, as printed by PyTorch."""
        return f"in_features={self.in_features}, out_features={self.out_features}, nnz={self.nnz}, bias={self.bias is not None}"


LAYERS: Table[type[SparseLinear]] = Table("layer")

_LayerClass = TypeVar("_LayerClass", bound=type[SparseLinear])


def register_layer(name: str) -> Callable[[_LayerClass], _LayerClass]:
    """Return a class decorator that enters a layer in LAYERS under `name`; raises InputError if the name is taken."""

    def register(layer: _LayerClass) -> _LayerClass:
        LAYERS.enter(name, layer)
        return layer

    return register
