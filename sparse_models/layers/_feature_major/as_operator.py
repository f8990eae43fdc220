"""A layer's product as operators of torch, so that who traces it (compile, export, jit.trace) sees one call and not kernels.

Called directly, as untraced layers do, the kernels need none of this, and take less time.
"""

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from sparse_models.errors import InputError

BUFFERS = ("row_pointers", "columns", "column_pointers", "rows", "transposition")


def linear(layer: Any, x: Tensor) -> Tensor:
    """Return the product of a layer over a structure that is kept both ways: [batch, out] for x [batch, in]."""
    values, bias = layer.values, layer.bias
    if x.layout != torch.strided:
        raise InputError(f"{type(layer).__name__}: expected an input in strides, got {x.layout}; call to_dense() on it")
    if torch.is_autocast_enabled(x.device.type):  # as kernels in one dtype do: computed in that of the weights
        x = x.to(values.dtype)
    if (x.dtype, x.device) != (values.dtype, values.device):
        raise InputError(
            f"{type(layer).__name__}: expected an input of {values.dtype} on {values.device}, as the weights are, "
            f"got {x.dtype} on {x.device}; convert it"
        )
    if not is_compiling():
        _count_flops()
    structure = [getattr(layer, name) for name in BUFFERS]
    kind = type(layer)
    result: Tensor = _linear(
        x, values, bias, structure, f"{kind.__module__}:{kind.__qualname__}", layer.out_features, layer.in_features
    )
    return result


def _layer(kind: str, structure: Sequence[Tensor], outputs: int, inputs: int) -> tuple[Any, tuple[Any, Any]]:
    """Return a layer's class and the structures of its weight and of the transpose, from what an operator was given."""
    module, name = kind.split(":")
    layer = getattr(sys.modules[module], name)
    bare = object.__new__(layer)  # of a layer, structures read what stands here, and nothing else
    bare.__dict__.update(_buffers=dict(zip(BUFFERS, structure, strict=True)), out_features=outputs, in_features=inputs)
    return layer, bare.structures


@torch.library.custom_op("sparse_models::linear", mutates_args=())
def _linear(
    x: Tensor, values: Tensor, bias: Tensor | None, structure: list[Tensor], kind: str, outputs: int, inputs: int
) -> Tensor:
    layer, (rows, _) = _layer(kind, structure, outputs, inputs)
    result: Tensor = layer.multiply(
        rows, _plain(values), layer.turned(x.resolve_neg()), None if bias is None else _plain(bias)
    ).t()
    return result


@torch.library.custom_op("sparse_models::linear_input_grad", mutates_args=())
def _input_grad(
    grad: Tensor, values: Tensor, structure: list[Tensor], kind: str, outputs: int, inputs: int, *, is_batch_major: bool
) -> Tensor:
    layer, (_, columns) = _layer(kind, structure, outputs, inputs)
    found: Tensor = layer.multiply_transposed(columns, _plain(values), structure[-1], layer.turned(grad.resolve_neg()))
    return layer.turned(found).to(found.dtype) if is_batch_major else found.t()


@torch.library.custom_op("sparse_models::linear_weight_grad", mutates_args=())
def _weight_grad(
    grad: Tensor, x: Tensor, values: Tensor, structure: list[Tensor], kind: str, outputs: int, inputs: int
) -> Tensor:
    layer, (rows, _) = _layer(kind, structure, outputs, inputs)
    result: Tensor = layer.sample(rows, layer.turned(grad.resolve_neg()), layer.turned(x.resolve_neg())).view(values.shape)
    return result


def is_batch_major(x: Tensor) -> bool:
    """Tell whether x [batch, in] is contiguous and more than a single sample or feature: so its gradient then is, too."""
    return x.is_contiguous() and not x.t().is_contiguous()


def _plain(tensor: Tensor) -> Tensor:
    """Return a tensor as kernels that see addresses alone read it."""
    return tensor.detach().resolve_neg().contiguous()


@_linear.register_fake
def _(x: Tensor, *rest: Any) -> Tensor:
    return x.new_empty(rest[-2], x.shape[0]).t()


@_input_grad.register_fake
def _(grad: Tensor, *rest: Any, is_batch_major: bool) -> Tensor:
    return grad.new_empty(grad.shape[0], rest[-1]) if is_batch_major else grad.new_empty(rest[-1], grad.shape[0]).t()


@_weight_grad.register_fake
def _(grad: Tensor, _: Tensor, values: Tensor, *rest: Any) -> Tensor:  # noqa: ARG001
    return grad.new_empty(values.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001  # torch passes it by name
    x, values, _, structure, *ctx.rest = inputs
    ctx.is_batch_major = is_batch_major(x)
    ctx.save_for_backward(x, values, *structure)


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, values, *structure = ctx.saved_tensors
    x_needed, values_needed, bias_needed, *_ = ctx.needs_input_grad
    x_grad = _input_grad(grad, values, structure, *ctx.rest, is_batch_major=ctx.is_batch_major) if x_needed else None
    values_grad = _weight_grad(grad, x, values, structure, *ctx.rest) if values_needed else None
    return x_grad, values_grad, grad.sum(0) if bias_needed else None, [None] * len(structure), None, None, None


_linear.register_autograd(_backward, setup_context=_keep)


def _count_flops() -> None:
    """Tell torch's FlopCounterMode, where one counts now, what these operators take: else it counts none of them.

    To have it know of them beforehand, as torch.utils.flop_counter is made for, would import Triton with the package: 0.15 s.
    """
    module = sys.modules.get("torch.utils.flop_counter")
    for mode in _get_current_dispatch_mode_stack() if module else ():
        if isinstance(mode, module._FlopCounterMode):  # type: ignore[union-attr]  # noqa: SLF001  # no public name for it
            mode.counter.flop_registry.update(FLOPS)


def _flops(x: Tensor, values: Tensor, *_: Any, **__: Any) -> int:
    """Return 2 FLOPs for each sample and each weight that is held, as every one of the operators takes."""
    return 2 * x.shape[0] * values.numel()


FLOPS = {
    torch.ops.sparse_models.linear: _flops,
    torch.ops.sparse_models.linear_input_grad: _flops,
    torch.ops.sparse_models.linear_weight_grad: lambda grad, _, *rest, **__: _flops(grad, *rest),
}
