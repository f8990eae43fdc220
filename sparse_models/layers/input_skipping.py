"""Zero inputs skipped: of few samples, the columns of the weight that meet only zeros are not read."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from sparse_models.kernels.asynchronous import is_captured
from sparse_models.kernels.cpu._compile import short_on_cpu
from sparse_models.kernels.cpu.few import columns
from sparse_models.kernels.cpu.few.skipping import Skipping
from sparse_models.kernels.triton import _loading
from sparse_models.kernels.triton import columns as on_gpu
from sparse_models.layers._base import MultiplyAdds, register_layer
from sparse_models.layers.dense import dense_product
from sparse_models.layers.masked import Masked
from sparse_models.linear import is_memory

NUMBERS = {"cpu": ("float32", "float64", *short_on_cpu()), "cuda": _loading.DTYPES}
LARGEST_BATCHES = {"cpu": columns.LARGEST_BATCH, "cuda": on_gpu.LARGEST_BATCH}
MISSING = _loading.why_absent()


@register_layer("input_skipping")
class InputSkipping(Masked):
    """Dense or sparse weights; up to 8 samples of an activation-sparse input read the columns of its non-zero inputs alone.

    Between ReLUs most inputs of a layer are zero, others in each sample: that sparsity costs no accuracy and needs no mask, and
    the mask's is on top of it. In `eval()` and without gradients the layer holds a copy of its weights by columns, made by the
    first few samples and made anew when weights or mask change; `values.data` and the replay of a captured training step change
    them unseen: call `train()` before and `eval()` after. All else (training, more samples, in which few inputs are zero
    together) is the dense product of `masked`. A forward pass that is captured reads the copy that there was then.

    A skipped column adds 0, also where it holds infinity, of which a dense product makes NaN.
    """

    devices: ClassVar[tuple[str, ...]] = tuple(NUMBERS) if MISSING is None else ("cpu",)
    dtypes: ClassVar[tuple[str, ...]] = NUMBERS["cpu"]
    layout: ClassVar[str] = "batch-major"
    skips_zeros: ClassVar[bool] = True
    is_indifferent: ClassVar[bool] = False
    is_default: ClassVar[bool] = False
    absent: ClassVar[Mapping[str, str]] = {} if MISSING is None else {"cuda": MISSING}
    _skipping: Skipping | on_gpu.Skipping | None = None

    @classmethod
    def dtypes_on(cls, device: str) -> tuple[str, ...]:
        """Return the number types that there are kernels for on a device."""
        return NUMBERS[device] if device in cls.devices else ()

    def index(self, mask: Tensor) -> None:
        """Store the mask [out, in] as zeros and ones of the weight's dtype."""
        self.outdate()
        super().index(mask)

    def product(self, x: Tensor) -> Tensor:
        """Return x (W * M)^T + b [batch, out]; few samples without gradients by the columns of non-zero inputs."""
        if self.training or torch.is_grad_enabled() or torch.is_autocast_enabled(kind_of(x)):
            self.outdate()
            return self.dense_product(x)
        if self._skipping is not None:
            known = self._skipping.again(self._buffers["kept"], self._parameters, x)
            if known is not None:
                return known
        if not self.is_for_few(x):
            return self.dense_product(x)
        kind = on_gpu.Skipping if kind_of(x) == "cuda" else Skipping
        if not isinstance(self._skipping, kind):
            self._skipping = kind()
        found = self._skipping.product(self.kept, self.values, x, self.bias)
        return self.dense_product(x) if found is None else found

    def dense_product(self, x: Tensor) -> Tensor:
        """Return x (W * M)^T + b [batch, out] by a dense product, of which nothing is skipped."""
        is_full = not is_captured(x) and self.nnz_as_set == self.kept.numel()
        return dense_product(x, self.values if is_full else self.values * self.kept, self.bias)

    def traced_product(self, x: Tensor) -> Tensor:
        """Return what `product` does for x [batch, in] while it is traced: a dense product."""
        return super().product(x)

    def is_for_few(self, x: Tensor) -> bool:
        """Tell whether the kernel for few samples multiplies x [batch, in], which sees addresses alone."""
        values, bias = self.values, self.bias
        plain = [values, *([] if bias is None else [bias])]
        return (
            0 < len(x) <= LARGEST_BATCHES.get(kind_of(x), 0)
            and str(x.dtype).removeprefix("torch.") in self.dtypes_on(kind_of(x))
            and not x.is_neg()
            and all(one.dtype == x.dtype and one.device == x.device and is_memory(one) and not one.is_neg() for one in plain)
            and values.shape == self.kept.shape
            and (bias is None or bias.shape == values.shape[:1])
            # Tensors of inference_mode count no changes, by which it would be seen that a copy is no longer one.
            and not any(one.is_inference() for one in (*plain, self.kept))
            and not (values.is_cpu and values.is_shared())  # nor are changes by other processes counted
        )

    def outdate(self) -> None:
        """Have the copy of the weights made anew when it is next needed: these are about to change."""
        if self._skipping is not None:
            self._skipping.outdate()

    def train(self, mode: bool = True) -> "InputSkipping":  # noqa: FBT001, FBT002  # as nn.Module has it
        """Set the mode, as nn.Module does; before and after a training, the copy of the weights is out of date."""
        self.outdate()
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_skipping": None}  # made anew where needed

    @property
    def multiply_adds(self) -> MultiplyAdds:
        """Multiply-adds per sample: forward those of the columns that the last few samples read, else dense ones."""
        size = self.values.numel()
        read = 1.0 if self._skipping is None else self._skipping.share_read
        return MultiplyAdds(round(size * read), size, size)

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights and structure that one forward pass reads: of few samples, those that the last ones read."""
        read = None if self._skipping is None else self._skipping.bytes_read
        return super().weight_bytes if read is None else read + (0 if self.bias is None else self.bias.nbytes)


def kind_of(x: Tensor) -> str:
    """Return the kind of device whose kernel multiplies x; tests let an interpreter do what a GPU's does."""
    return x.device.type
