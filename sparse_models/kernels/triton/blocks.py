"""Block-sparse products on a GPU: CSR of blocks and batch-major activations in, outputs and gradients out, by Triton."""

import importlib
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sparse_models.kernels.cuda import _card, _race
from sparse_models.kernels.structure import BlockStructure
from sparse_models.kernels.triton import _loading
from sparse_models.kernels.triton._plan import EXACT, SIZES, Plan, parts_of, product_plans, sampled_plans

SIDE = 64  # of a tile that is transposed


def why_absent(unit: tuple[int, int] = (SIZES[0], SIZES[0])) -> str | None:
    """Return why blocks [rows, columns] are not multiplied on a GPU, with what to do; None where they are."""
    if unit not in [(size, size) for size in SIZES]:
        sizes = ", ".join(f"{size} x {size}" for size in SIZES)
        return (
            f"a GPU's tensor cores multiply tiles, so blocks there are of {sizes}, not {unit[0]} x {unit[1]}: use one of these"
        )
    return _loading.why_absent()


def linear(x: Tensor, values: Tensor, bias: Tensor | None, rows: BlockStructure, columns: BlockStructure) -> Tensor:
    """Return x [batch, in] times the weight transposed, plus bias [out]: [batch, out], differentiable.

    `rows` is where the blocks of the weight are, `columns` where those of its transpose.
    """
    if not torch.is_grad_enabled():
        return product(rows, values, x, bias)
    result: Tensor = _Linear.apply(x, values, bias, rows, columns)  # type: ignore[no-untyped-call]
    return result


class _Linear(torch.autograd.Function):
    """y = x W^T + b, dx = dy W, and dW at the kept blocks; the structures travel with the graph, so that a mask may move."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, values: Tensor, bias: Tensor | None, rows: BlockStructure, columns: BlockStructure
    ) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x, values.detach())  # the parameter itself may be given other data when the mask moves
        ctx.structures = rows, columns
        return product(rows, values, x, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (x, values), (rows, columns) = ctx.saved_tensors, ctx.structures
        x_needed, values_needed, bias_needed, *_ = ctx.needs_input_grad
        grad = grad.contiguous()
        x_grad = product(columns, values, grad) if x_needed else None
        values_grad = sampled(rows, grad, x) if values_needed else None
        return x_grad, values_grad, grad.sum(0) if bias_needed else None, None, None


def product(
    structure: BlockStructure, values: Tensor, x: Tensor, bias: Tensor | None = None, plan: Plan | None = None
) -> Tensor:
    """Return x [batch, columns] times the matrix of blocks `values`, transposed, plus bias [rows]: [batch, rows].

    As a layer's product with its weight is x W^T, that with the weight's own structure is an output, and that with its
    transpose's an input gradient.
    """
    x, size, (batch, inputs) = x.contiguous(), structure.height, x.shape
    outputs, order, programs = structure.rows, structure.order, structure.rows_of_blocks
    result = x.new_empty(batch, outputs)
    if result.numel() == 0:
        return result
    whole, turned, precision, given = inputs % size == 0, order is not None, _precision(x), values
    if turned and precision == "tf32":  # of which tensor cores take both factors with the summed dimension last, or copy them
        values, turned = values.transpose(1, 2).contiguous(), False
    if plan is None:
        tma, shared = _has_tma(x, values, inputs), _card.card_of(x.device).shared_bytes
        kernel = f"{'transposed ' if order is not None else ''}block{size} product ({precision}{' by TMA' if tma else ''})"
        plan = _race.chosen(
            kernel, (inputs, outputs), batch, given.numel(), x,
            lambda: product_plans(size, batch, x.dtype, precision, has_tma=tma, shared_bytes=shared),
            lambda one: product(structure, given, x, bias, one),
        )  # fmt: skip
    factors = (_box(x, plan.rows, size), _box(values.view(-1, size), size, size)) if plan.by_tma else (x, values)
    options: dict[str, int | str] = {
        "SIZE": size,
        "ROWS": plan.rows,
        "DEPTH": plan.depth,
        "TURNED": turned,
        "ORDERED": order is not None,
    }
    options |= {"WHOLE": whole, "BIASED": bias is not None, "BY_TMA": plan.by_tma, "PRECISION": precision}
    with torch.cuda.device_of(x):
        _loading.kernels().product[(programs * -(-batch // plan.rows),)](
            *factors, *structure.arrays, result if bias is None else bias, result, batch, inputs, outputs, programs,
            **options, num_warps=plan.warps, num_stages=plan.stages,
        )  # fmt: skip
    return result


def sampled(structure: BlockStructure, grad: Tensor, x: Tensor, plan: Plan | None = None) -> Tensor:
    """Return, at the blocks alone [blocks, size, size], grad [batch, rows] transposed times x [batch, columns].

    What a block has beyond the matrix is 0.
    """
    grad, x, size, (batch, inputs), outputs = grad.contiguous(), x.contiguous(), structure.height, x.shape, grad.shape[1]
    count, precision = len(structure.indices), _precision(x)
    if count == 0 or batch == 0:
        return x.new_zeros(count, size, size)
    if plan is None:
        shared = _card.card_of(x.device).shared_bytes
        plan = _race.chosen(
            f"block{size} gradient ({precision})", (inputs, outputs), batch, count * size * size, x,
            lambda: sampled_plans(size, x.dtype, precision, shared), lambda one: sampled(structure, grad, x, one),
        )  # fmt: skip
    feature_major = precision == "tf32"
    if feature_major:
        grad, x = transposed(grad), transposed(x)
    rows = structure.rows_of_blocks
    programs = count // plan.rows + rows
    parts = parts_of(programs, batch, _card.card_of(x.device).multiprocessors)
    each = -(-batch // parts // plan.depth) * plan.depth
    parts = -(-batch // each)
    result = x.new_empty(parts, count, size, size, dtype=x.dtype if parts == 1 else torch.float32)
    whole = inputs % size == 0 and outputs % size == 0 and batch % plan.depth == 0
    options: dict[str, int | str] = {
        "SIZE": size,
        "COUNT": plan.rows,
        "DEPTH": plan.depth,
        "POINTERS": 1 << (rows - 1).bit_length(),
    }
    options |= {"FEATURE_MAJOR": feature_major, "WHOLE": whole, "PRECISION": precision}
    with torch.cuda.device_of(x):
        _loading.kernels().sampled[(programs, parts)](
            grad, x, structure.pointers, structure.indices, result, batch, inputs, outputs, rows, each, count,
            **options, num_warps=plan.warps, num_stages=plan.stages,
        )  # fmt: skip
    return result[0] if parts == 1 else result.sum(0).to(x.dtype)


def transposed(x: Tensor) -> Tensor:
    """Return x [rows, columns], contiguous, as [columns, rows], contiguous."""
    rows, columns = x.shape
    result = x.new_empty(columns, rows)
    with torch.cuda.device_of(x):
        _loading.kernels().transposed[-(-rows // SIDE), -(-columns // SIDE)](x, result, rows, columns, SIDE=SIDE)
    return result


def _precision(x: Tensor) -> str:
    """Return how products of float32 are computed: from all bits, in three products of TensorFloat-32, or as torch is set."""
    if x.dtype != torch.float32:
        return "ieee"  # of no consequence
    return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else EXACT


def _has_tma(x: Tensor, values: Tensor, inputs: int) -> bool:
    """Tell whether a card's memory accelerator (from compute capability 9.0 on) copies tiles of x and values."""
    aligned = (x.data_ptr() | values.data_ptr() | inputs * x.element_size()) % 16 == 0
    return aligned and len(values) > 0 and x.is_cuda and torch.cuda.get_device_capability(x.device)[0] >= 9


def _box(tensor: Tensor, rows: int, columns: int) -> Any:
    """Return what tells the memory accelerator where tiles [rows, columns] of a matrix are; what is outside is 0."""
    return importlib.import_module("triton.tools.tensor_descriptor").TensorDescriptor.from_tensor(tensor, [rows, columns])
