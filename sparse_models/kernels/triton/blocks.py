"""Block-sparse products on a GPU: CSR of blocks and batch-major activations in, outputs and gradients out, by Triton."""

import importlib
import importlib.util
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sparse_models.kernels.cuda._tiling import multiprocessors
from sparse_models.kernels.structure import Structure
from sparse_models.kernels.triton._plan import EXACT, SIZES, Plan, parts_of, product_plan, sampled_plan

DTYPES = ("float32", "float16", "bfloat16")
SIDE = 64  # of a tile that is transposed


class Blocks(NamedTuple):
    """Where the blocks of a weight [outputs, inputs] are: its CSR of blocks, and that of its transpose.

    `rows` has the pointers of rows of blocks and the column of each block; `columns` likewise the transpose's; `order` [blocks]
    is which block of the values each of the transpose's is. Their values are [blocks, size, size], each [out, in], with zeros
    where a block at an edge reaches beyond the matrix.
    """

    rows: Structure
    columns: Structure
    order: Tensor
    outputs: int
    inputs: int


def why_absent(size: int = SIZES[0]) -> str | None:
    """Return why blocks of a size are not multiplied on a GPU, with what to do; None where they are."""
    if size not in SIZES:
        sizes = ", ".join(map(str, SIZES))
        return f"a GPU's tensor cores take no tile of {size} x {size}, so blocks there are of {sizes}: choose one of these"
    return _why_no_triton()


@cache
def _why_no_triton() -> str | None:
    if importlib.util.find_spec("triton") is not None:  # found, not imported
        return None
    return "its kernels there need Triton, which CUDA builds of PyTorch for Linux bring: pip install triton"


def linear(x: Tensor, values: Tensor, bias: Tensor | None, blocks: Blocks) -> Tensor:
    """Return x [batch, inputs] times the weight transposed, plus bias [outputs]: [batch, outputs], differentiable."""
    if not torch.is_grad_enabled():
        return product(blocks.rows, values, x, bias, outputs=blocks.outputs)
    result: Tensor = _Linear.apply(x, values, bias, blocks)  # type: ignore[no-untyped-call]
    return result


class _Linear(torch.autograd.Function):
    """y = x W^T + b, dx = dy W, and dW at the kept blocks; the blocks travel with the graph, so that a mask may move."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, bias: Tensor | None, blocks: Blocks) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x, values.detach())
        ctx.blocks = blocks
        return product(blocks.rows, values, x, bias, outputs=blocks.outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (x, values), blocks = ctx.saved_tensors, ctx.blocks
        x_needed, values_needed, bias_needed, _ = ctx.needs_input_grad
        grad = grad.contiguous()
        x_grad = product(blocks.columns, values, grad, outputs=blocks.inputs, order=blocks.order) if x_needed else None
        values_grad = sampled(blocks.rows, grad, x, values.shape[1]) if values_needed else None
        return x_grad, values_grad, grad.sum(0) if bias_needed else None, None


def product(
    structure: Structure,
    values: Tensor,
    x: Tensor,
    bias: Tensor | None = None,
    *,
    outputs: int,
    order: Tensor | None = None,
    plan: Plan | None = None,
) -> Tensor:
    """Return x [batch, inputs] times the matrix of `values` [blocks, size, size] transposed, plus bias: [batch, outputs].

    With `order`, the structure is that of a transpose: its blocks are those of values[order], each transposed.
    """
    x, size, (batch, inputs) = x.contiguous(), values.shape[1], x.shape
    result = x.new_empty(batch, outputs)
    if result.numel() == 0:
        return result
    whole, turned, precision = inputs % size == 0, order is not None, _precision(x)
    if turned and precision == "tf32":  # of which tensor cores take both factors with the summed dimension last, or copy them
        values, turned = values.transpose(1, 2).contiguous(), False
    plan = plan or product_plan(size, batch, x.dtype, precision, has_tma=_has_tma(x, values, inputs))
    factors = (_box(x, plan.rows, size), _box(values.view(-1, size), size, size)) if plan.by_tma else (x, values)
    options: dict[str, int | str] = {
        "SIZE": size,
        "ROWS": plan.rows,
        "DEPTH": plan.depth,
        "TURNED": turned,
        "ORDERED": order is not None,
    }
    options |= {"WHOLE": whole, "BIASED": bias is not None, "BY_TMA": plan.by_tma, "PRECISION": precision}
    structures = (structure.pointers, structure.indices, structure.indices if order is None else order)
    with torch.cuda.device_of(x):
        _kernels().product[(structure.rows * -(-batch // plan.rows),)](
            *factors, *structures, result if bias is None else bias, result, batch, inputs, outputs, structure.rows,
            **options, num_warps=plan.warps, num_stages=plan.stages,
        )  # fmt: skip
    return result


def sampled(structure: Structure, grad: Tensor, x: Tensor, size: int, plan: Plan | None = None) -> Tensor:
    """Return, at the kept blocks alone [blocks, size, size], grad [batch, outputs] transposed times x [batch, inputs].

    What a block has beyond the matrix is 0.
    """
    grad, x, (batch, inputs), outputs = grad.contiguous(), x.contiguous(), x.shape, grad.shape[1]
    count, precision = len(structure.indices), _precision(x)
    plan = plan or sampled_plan(size, x.dtype, precision)
    if count == 0 or batch == 0:
        return x.new_zeros(count, size, size)
    feature_major = precision == "tf32"
    if feature_major:
        grad, x = transposed(grad), transposed(x)
    programs = count // plan.rows + structure.rows
    parts = parts_of(programs, batch, multiprocessors(x.device))
    each = -(-batch // parts // plan.depth) * plan.depth
    parts = -(-batch // each)
    result = x.new_empty(parts, count, size, size, dtype=x.dtype if parts == 1 else torch.float32)
    whole = inputs % size == 0 and outputs % size == 0 and batch % plan.depth == 0
    options: dict[str, int | str] = {
        "SIZE": size,
        "COUNT": plan.rows,
        "DEPTH": plan.depth,
        "POINTERS": 1 << (structure.rows - 1).bit_length(),
    }
    options |= {"FEATURE_MAJOR": feature_major, "WHOLE": whole, "PRECISION": precision}
    with torch.cuda.device_of(x):
        _kernels().sampled[(programs, parts)](
            grad, x, structure.pointers, structure.indices, result, batch, inputs, outputs, structure.rows, each, count,
            **options, num_warps=plan.warps, num_stages=plan.stages,
        )  # fmt: skip
    return result[0] if parts == 1 else result.sum(0).to(x.dtype)


def transposed(x: Tensor) -> Tensor:
    """Return x [rows, columns], contiguous, as [columns, rows], contiguous."""
    rows, columns = x.shape
    result = x.new_empty(columns, rows)
    with torch.cuda.device_of(x):
        _kernels().transposed[-(-rows // SIDE), -(-columns // SIDE)](x, result, rows, columns, SIDE=SIDE)
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


@cache
def _kernels() -> Any:
    """Return the kernels: Triton is imported by the first product, for it is slow, and need not be there."""
    return importlib.import_module("sparse_models.kernels.triton._kernels")
