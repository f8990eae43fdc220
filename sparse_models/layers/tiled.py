"""Kernels of our own: CSR weights, a tile of the batch at a time, and nothing done outside the non-zeros; on CPU and GPU."""

import copy
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from sparse_models.kernels.asynchronous import is_captured
from sparse_models.kernels.cpu import tiled
from sparse_models.kernels.cpu._arithmetic import computed
from sparse_models.kernels.cpu._compile import short_on_cpu
from sparse_models.kernels.cpu.few import frozen as few
from sparse_models.kernels.cpu.permute import permuted
from sparse_models.kernels.cpu.transpose import transposed
from sparse_models.kernels.cuda import _card, small_batch
from sparse_models.kernels.cuda import product as on_gpu
from sparse_models.kernels.cuda import sampled as sampled_on_gpu
from sparse_models.kernels.cuda._compile import why_absent
from sparse_models.kernels.cuda.frozen import Frozen
from sparse_models.kernels.link import Link
from sparse_models.kernels.source import Source
from sparse_models.kernels.structure import Structure, cut
from sparse_models.layers._base import INPUT_GRADIENT, WEIGHT_GRADIENT, SparseLinear, register_layer
from sparse_models.layers._feature_major.held_few import HeldFew, NotForFew
from sparse_models.layers._feature_major.own_kernels import OwnKernels

NUMBERS = {"cpu": ("float32", "float64", *short_on_cpu()), "cuda": ("float32", "float16", "bfloat16")}
MISSING = why_absent()


@register_layer("tiled")
class Tiled(OwnKernels):
    """CSR weights multiplied by compiled kernels: on torch's own threads (sparse_models.kernels.cpu.tiled), or on a GPU.

    Takes any strides; fastest with feature-major input ([in, batch] contiguous), and returns feature-major output, so that
    chains transpose nothing. On a GPU up to small_batch.LARGEST_BATCH samples, on a CPU up to few.largest_batch(), are
    multiplied by another kernel where the layer is in `eval()` and no gradient is wanted: it holds a copy of the weights for
    each form that kernel wants (up to three), made by the first such call and anew when weights or mask change. Three things
    change weights unseen: `values.data`, the replay of a captured training step or mask update, and the step of a fused
    optimizer whose gradients are from before the copy. Call `train()` before and `eval()` after. After a move to another mask a
    forward pass is captured anew; and one layer multiplies few samples on one stream at a time.
    """

    devices: ClassVar[tuple[str, ...]] = tuple(NUMBERS) if MISSING is None else ("cpu",)
    dtypes: ClassVar[tuple[str, ...]] = NUMBERS["cpu"]
    absent: ClassVar[Mapping[str, str]] = {} if MISSING is None else {"cuda": MISSING}
    _frozen: Frozen | few.Frozen | None = None
    _few: Mapping[int, HeldFew | NotForFew] = MappingProxyType({})  # by samples, of chains that it is the first of
    _cut_of: Tensor | None = None  # the columns of which it is held where each piece starts
    _is_replayed = False  # whether a CUDA graph moves it to other masks, which nothing counts

    @classmethod
    def dtypes_on(cls, device: str) -> tuple[str, ...]:
        """Return the number types that the kernels are compiled for on a device."""
        return NUMBERS[device] if device in cls.devices else ()

    @classmethod
    def layout_for(cls, device: str, batch: int, *, learning: bool) -> str:
        """Return the layout for so many samples: kernels for few take and return them as they come."""
        most = few.largest_batch() if device == "cpu" else small_batch.LARGEST_BATCH
        return "batch-major" if batch <= most and not learning and device in cls.devices else cls.layout

    @classmethod
    def device_of(cls, x: Tensor) -> str:
        """Return where x is, and so which kernels multiply it."""
        return "cuda" if on_a_gpu(x) else x.device.type

    def index_units(self, units: Tensor) -> None:
        """Store the structure of the kept units [grid], and where rows start in each piece of columns."""
        super().index_units(units)
        self.cut()

    def cut(self) -> None:
        """Store where rows start in each piece of columns, of the index that is there now, both ways; not on a GPU."""
        self._cut_of = columns = self.columns
        self._is_replayed = self._is_replayed or is_captured(columns)
        for name, structure in zip(("row_starts", "column_starts"), self.structures, strict=True):
            self.register_buffer(name, cut(*structure[:3]) if columns.is_cpu else None, persistent=False)

    def _refill(self, held: dict[str, Tensor | None], moments: list[Tensor], values: Tensor, moved: list[Tensor]) -> None:
        super()._refill(held, moments, values, moved)
        self._cut_of = self.columns

    @property
    def structures(self) -> tuple[Structure, Structure]:
        """The structure of the weight [out, in] and that of its transpose."""
        own = cast("dict[str, Tensor]", self._buffers)
        if self._cut_of is not own["columns"] and self._cut_of is not None and own["columns"].is_cpu:
            self.cut()  # an index was put in the place of its own, as by `torch.func.functional_call`
        return (
            Structure(own["row_pointers"], own["columns"], self.in_features, own.get("row_starts")),
            Structure(own["column_pointers"], own["rows"], self.out_features, own.get("column_starts")),
        )

    def at_once(self, x: Tensor) -> Tensor | None:
        """Return the product of few samples where nothing has changed since the last one's; None elsewhere."""
        if self.training or torch.is_grad_enabled() or not isinstance(self._frozen, few.Frozen):
            return None
        return self._frozen.again(self._buffers["columns"], self._parameters, x)

    def multiplied(self, x: Tensor) -> Tensor:
        """Return x W^T + b [batch, out], feature-major, for x that the kernels take."""
        is_few = self.is_for_few(x)
        found = self.frozen.product(self.structures[0], self.own("values"), x, self.own("bias")) if is_few else None
        return super().multiplied(x) if found is None else found

    def learning_product(self, x: Tensor, products: Any) -> Tensor:
        """Return x W^T + b [batch, out], feature-major, with its graph: the weights are about to be trained."""
        self.outdate()
        return super().learning_product(x, products)

    @classmethod
    def chain_output(cls, layers: Sequence[SparseLinear], x: Tensor) -> Tensor | None:
        """Return what a chain of such layers makes of x: few samples by the copies that each has for them, once it has."""
        if torch.is_grad_enabled() or x.dim() != 2:
            return None
        first, batch = layers[0], x.shape[0]
        known = first._few.get(batch) if isinstance(first, Tiled) else None  # noqa: SLF001  # of its own class
        if known is None or not known.is_current(layers, x):
            is_few = (
                0 < batch <= few.largest_batch() and cls.device_of(x) == "cpu" and not any(one.is_watched for one in layers)
            )
            if not is_few or len(layers) == 1 or not all(isinstance(layer, Tiled) for layer in layers):
                return super().chain_output(layers, x)
            chained = cast("Sequence[Tiled]", layers)
            known = HeldFew.made(chained, batch) or NotForFew(chained, x)
            if known.is_known:
                chained[0]._few = {**chained[0]._few, batch: known}  # noqa: SLF001  # another, for threads may look into this one
        return super().chain_output(layers, x) if known.is_by_tiles else known.of(x)

    def outdate(self) -> None:
        """Have copies of the weights made anew when they are next needed: these are about to be trained."""
        if self._frozen is not None:
            self._frozen.outdate()
            self._frozen = None if self._is_replayed else self._frozen  # of which mask is not known

    def is_for_few(self, x: Tensor) -> bool:
        """Tell whether a kernel for few samples multiplies x [batch, in]."""
        if self.training or torch.is_grad_enabled():
            return False
        columns = cast("Tensor", self._buffers["columns"])
        if on_a_gpu(x):
            has_kernel = 0 < len(x) <= small_batch.LARGEST_BATCH and columns.numel() > 0
        else:
            # Where other processes have the weights, too, their changes are not seen by what a tensor counts.
            has_kernel = self.form_for(x) is not None and not self.own("values").is_shared()
        # Tensors of inference_mode count no changes, by which it would be seen that a copy is no longer one.
        return has_kernel and not columns.is_inference() and not self.own("values").is_inference()

    def form_for(self, x: Tensor) -> few.Pack | None:
        """Return what packs the weights for as many samples as x [batch, in] on a CPU; None where any number is as fast."""
        nnz = cast("Tensor", self._buffers["columns"]).numel()
        return few.form_for(self.out_features, self.in_features, nnz, x.dtype, len(x))

    @property
    def frozen(self) -> Frozen | few.Frozen:
        """The weights as the kernel for few samples reads them, on the device where they are."""
        kind = Frozen if on_a_gpu(self.own("values")) else few.Frozen
        if not isinstance(self._frozen, kind):
            self._frozen = kind()
        return self._frozen

    def train(self, mode: bool = True) -> "Tiled":  # noqa: FBT001, FBT002  # as nn.Module has it
        """Set the mode, as nn.Module does; before and after a training, copies of the weights are out of date."""
        if mode or self.training:
            self.outdate()
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_frozen": None, "_few": {}}  # made anew where needed

    def __deepcopy__(self, memo: dict[int, Any]) -> "Tiled":
        own: Tiled = type(self).__new__(type(self))
        memo[id(self)] = own
        own.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        if self._frozen is not None and not self.own("values").is_inference():
            own._frozen = self._frozen.copied(self.source, own.source)
        return own

    @property
    def source(self) -> Source:
        """What copies of the weights are made from."""
        return Source.of(self.structures[0].indices, self.own("values").detach())

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights and structure that one forward pass reads, for few samples where it last was for such."""
        held = None if self._frozen is None else self._frozen.bytes_read
        return super().weight_bytes if held is None else held

    def tile_bytes(self, product: int, batch: int) -> int | None:
        """Return the bytes of a panel of a tile, on a GPU of a multiprocessor's shared memory; few samples have none."""
        if self.values.is_cuda or batch == 1:
            return _card.card_of(self.values.device).shared_bytes if batch > small_batch.LARGEST_BATCH else None
        structure = self.structures[product == INPUT_GRADIENT]
        x = self.values.new_empty(structure.columns, batch, dtype=computed(self.values.dtype))
        return tiled.tile_bytes("sampled" if product == WEIGHT_GRADIENT else "product", structure, x)

    @staticmethod
    def turned(x: Tensor) -> Tensor:
        """Return x [batch, features], in any strides, as [features, batch], contiguous; on a CPU in float32 where in 16 bit."""
        return x.t().contiguous() if on_a_gpu(x) else transposed(x.float() if x.dtype.itemsize == 2 else x)

    @staticmethod
    def permuted(values: Tensor, order: Tensor) -> Tensor:
        """Return values[order] [nnz]; on a CPU in float32 where in 16 bit."""
        return values.index_select(0, order) if on_a_gpu(values) else permuted(values.to(computed(values.dtype)), order)

    @staticmethod
    def multiply(structure: Structure, values: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return the matrix that holds `values` [nnz] times x [columns, batch], plus bias [rows]: [rows, batch]."""
        if on_a_gpu(x):
            return on_gpu.product(structure, values, x, bias)
        if values.dtype == x.dtype:
            return tiled.product(structure, values, x, bias)
        return tiled.product(structure, values, x, None if bias is None else bias.to(x.dtype)).to(values.dtype)

    @classmethod
    def multiply_transposed(cls, structure: Structure, values: Tensor, order: Tensor, x: Tensor) -> Tensor:
        """Return the matrix that holds values[order] [nnz] times x [columns, batch]: [rows, batch]."""
        if on_a_gpu(x):
            return on_gpu.product(structure, values, x, order=order)
        return tiled.product(structure, values.to(x.dtype), x, order=order).to(values.dtype)

    @staticmethod
    def sample(structure: Structure, grad: Tensor, x: Tensor) -> Tensor:
        """Return, at the non-zeros alone [nnz], grad [rows, batch] times x [columns, batch] transposed."""
        return sampled_on_gpu.sampled(structure, grad, x) if on_a_gpu(x) else tiled.sampled(structure, grad, x)

    @classmethod
    def sample_and_sum(cls, structure: Structure, grad: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `sample` does, and the sums of grad's rows [rows], from one pass over grad."""
        return (sampled_on_gpu.sampled_and_summed if on_a_gpu(x) else tiled.sampled_and_summed)(structure, grad, x)

    def link(self) -> Link:
        """Return the layer as a fused kernel takes it: on a CPU in float32 where in 16 bit."""
        self.outdate()
        link = super().link()
        if on_a_gpu(link.values):
            return link
        dtype = computed(link.values.dtype)
        return link._replace(values=link.values.to(dtype), bias=None if link.bias is None else link.bias.to(dtype))


def on_a_gpu(x: Tensor) -> bool:
    """Tell whether the kernels of a GPU multiply x; tests let an emulator do that."""
    return x.is_cuda
