"""What a GPU's dense products must be while a layer is held against them."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


@contextlib.contextmanager
def exact_products() -> Iterator[None]:
    """Have a GPU's dense products computed from all bits of their factors, and summed in float32.

    As PyTorch comes, cuBLAS may add up parts of a 16-bit product in 16 bits, which is no definition to hold anything against.
    """
    products: Any = torch.backends.cuda.matmul
    exact = {"fp32_precision": "ieee"}
    exact |= dict.fromkeys(("allow_bf16_reduced_precision_reduction", "allow_fp16_reduced_precision_reduction"), False)  # type: ignore[arg-type]
    before = {name: getattr(products, name) for name in exact}
    for name, value in exact.items():
        setattr(products, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(products, name, value)
