"""The kernels in Triton, which is slow to import and need not be there: why they are absent, and what they are, once wanted."""

import importlib
import importlib.util
from functools import cache
from typing import Any

DTYPES = ("float32", "float16", "bfloat16")


@cache
def why_absent() -> str | None:
    """Return why this process has no Triton, with what to do; None where it is found, which is not yet imported."""
    if importlib.util.find_spec("triton") is not None:
        return None
    return "its kernels there need Triton, which CUDA builds of PyTorch for Linux bring: pip install triton"


@cache
def kernels() -> Any:
    """Return the kernels: Triton is imported by the first product."""
    return importlib.import_module("sparse_models.kernels.triton._kernels")
