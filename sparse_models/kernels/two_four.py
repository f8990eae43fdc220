"""Products with 2:4 sparse weights on a GPU's sparse tensor cores, by cuSPARSELt as PyTorch brings it; any sizes are taken."""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from sparse_models.kernels.asynchronous import is_captured
from sparse_models.kernels.kept_code import cache_folder, replace

DTYPES = ("float16", "bfloat16")  # of those that torch hands to cuSPARSELt, those in which a layer has gradients
WEIGHT_MULTIPLE, BATCH_MULTIPLE = 16, 8  # of rows and columns of the sparse factor, and of samples
ALIGNED_BYTES = 16


class Algorithm(NamedTuple):
    """Which of cuSPARSELt's kernels multiplies: its number, and how the summed dimension is split."""

    alg_id: int = 0
    split_k: int = 1
    split_k_mode: int = -1


@cache
def why_absent() -> str | None:
    """Return what is missing for 2:4 products on a GPU, with what to install; None where nothing is."""
    if torch.backends.cusparselt.is_available():
        return None
    return "its sparse tensor cores are reached by cuSPARSELt, which this build of PyTorch lacks: install one for CUDA"


def compress(weight: Tensor) -> Tensor:
    """Return weight [out, in], of which each 4 in a row have at most 2 that are not 0, as cuSPARSELt reads it.

    It holds, of the padded weight, half the numbers and 2 bits for each, in an order of its own.
    """
    rows, columns = (-size % WEIGHT_MULTIPLE for size in weight.shape)
    padded = functional.pad(weight, (0, columns, 0, rows)) if rows or columns else _aligned(weight)
    return torch._cslt_compress(padded)  # noqa: SLF001  # PyTorch has no public name for it


def product(compressed: Tensor, x: Tensor, bias: Tensor | None, outputs: int) -> Tensor:
    """Return x [batch, in] times the transpose of the weight [outputs, in], plus bias [outputs]: [batch, outputs]."""
    batch, inputs = x.shape
    if batch == 0:
        return x.new_empty(0, outputs)
    samples, columns, rows = -batch % BATCH_MULTIPLE, -inputs % WEIGHT_MULTIPLE, -outputs % WEIGHT_MULTIPLE
    x = functional.pad(x, (0, columns, 0, samples)) if samples or columns else _aligned(x)
    if bias is not None:
        bias = functional.pad(bias, (0, rows)) if rows else _aligned(bias)
    chosen = _algorithm(compressed, x.t(), bias)._asdict()
    result = torch._cslt_sparse_mm(compressed, x.t(), bias, transpose_result=True, **chosen)  # noqa: SLF001  # see compress
    return result[:batch, :outputs]


def _aligned(tensor: Tensor) -> Tensor:
    """Return a contiguous tensor whose memory begins where the library wants it to."""
    tensor = tensor.contiguous()
    return tensor if tensor.data_ptr() % ALIGNED_BYTES == 0 else tensor.clone()


_FASTEST: dict[tuple[Any, ...], Algorithm] = {}


def _algorithm(compressed: Tensor, x: Tensor, bias: Tensor | None) -> Algorithm:
    """Return the fastest for these sizes, which cuSPARSELt looks for at their first product: it runs all it has.

    What it finds is kept for later processes. While a CUDA graph is captured nothing can be run to look: then it is the usual
    one, unless the sizes are known.
    """
    key = (compressed.shape, x.shape, x.dtype, x.device, bias is None)
    if key not in _FASTEST:
        name, path = f"{[*compressed.shape, *x.shape]} {x.dtype}{'' if bias is None else ', bias'}", _path(x)
        known = _kept(path).get(name)
        if known is None:
            if is_captured(x):
                return Algorithm()
            search: Any = torch._C._cusparselt.mm_search  # type: ignore[attr-defined]  # noqa: SLF001  # see compress
            with torch.cuda.device_of(x):  # it runs on the current card, whichever its tensors are on
                *found, _ = search(compressed, x, bias, None, None, True)  # noqa: FBT003  # transpose_result, by position alone
            kept = {name: found} | _kept(path)  # another process may have been first: all then use the same
            replace(path, json.dumps(kept).encode())
            known = Algorithm(*kept[name])
        _FASTEST[key] = known
    return _FASTEST[key]


def _path(x: Tensor) -> Path:
    """Return the file of the algorithms that are fastest on x's card, by this version of the library."""
    versions = [_card(x.device), torch.__version__, torch.backends.cusparselt.version()]
    return cache_folder() / f"cusparselt-{hashlib.sha256(json.dumps(versions).encode()).hexdigest()[:12]}.json"


@cache
def _card(device: torch.device) -> str:
    return torch.cuda.get_device_name(device)


def _kept(path: Path) -> dict[str, Algorithm]:
    """Return the algorithms that a file holds by the sizes of the product; none of what cannot be read."""
    try:
        return {name: Algorithm(*map(int, numbers)) for name, numbers in json.loads(path.read_bytes()).items()}
    except (AttributeError, OSError, TypeError, ValueError):
        return {}
