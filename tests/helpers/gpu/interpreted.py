"""Triton's kernels on a card where there is one, and in its interpreter everywhere: a test that takes `device` runs on both.

The interpreter has a dot of bfloat16 that is wrong (its numbers are NumPy's), so that tests are in float16 and float32.
"""

import importlib.util
import sys
from functools import cache
from importlib.metadata import version
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sparse_models.kernels.cuda import _card
from sparse_models.kernels.cuda._card import Card
from sparse_models.kernels.triton import _loading

NEW_EMPTY: Any = torch.Tensor.new_empty
MULTIPROCESSORS = 7  # of the card that is not there


@pytest.fixture(params=["interpreted", pytest.param("cuda", marks=pytest.mark.card)])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the device on which tensors of a test are to be; memory that kernels are given to write is NaN.

    Not by PyTorch's deterministic algorithms, as elsewhere: with these cuBLAS, on a card, wants to be told by the environment.
    """
    if request.param == "interpreted":
        needs_interpreter()
        monkeypatch.setattr(_loading, "kernels", interpreted_kernels)
        within_tensors(monkeypatch)
        monkeypatch.setattr(_card, "card_of", lambda _: Card(MULTIPROCESSORS))
    elif _loading.why_absent():
        pytest.skip(str(_loading.why_absent()))
    monkeypatch.setattr(torch.Tensor, "new_empty", new_nan)
    return "cuda" if request.param == "cuda" else "cpu"


def needs_interpreter() -> None:
    """Skip the test where Triton's interpreter is not there, or does not take the kernels."""
    if _loading.why_absent():
        pytest.skip(str(_loading.why_absent()))
    if int(version("triton").split(".")[1]) < 7 and version("triton")[0] == "3":
        pytest.skip("before 3.7 Triton's interpreter takes no loop over numbers of NumPy from 2.4 on: pip install triton")


def within_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse what is read or written outside of a kernel's tensors; what a mask leaves out, and no `other` fills, is NaN."""
    interpreter: Any = importlib.import_module("triton.runtime.interpreter")
    executor, builder = interpreter.GridExecutor, interpreter.InterpreterBuilder
    init, load, store = executor._init_args_hst, builder.create_masked_load, builder.create_masked_store
    known: list[tuple[int, int]] = []

    def noted(self: Any, arguments: Any, named: Any) -> Any:
        found, rest = init(self, arguments, named)
        tensors = [getattr(one, "base", one) for one in (*found, *rest.values())]
        assert all(one.is_contiguous() for one in tensors if isinstance(one, Tensor))
        known[:] = [(one.data_ptr(), one.data_ptr() + one.nbytes) for one in tensors if isinstance(one, Tensor)]
        return found, rest

    def check(pointers: Any, mask: Any) -> None:
        size = pointers.get_element_ty().primitive_bitwidth // 8
        touched = pointers.data[np.broadcast_to(mask.data, pointers.data.shape)].astype(np.int64)
        inside = np.zeros(touched.shape, bool)
        for begin, end in known:
            inside |= (touched >= begin) & (touched + size <= end)
        assert inside.all(), "memory is touched that is no tensor's"

    def checked_load(self: Any, pointers: Any, mask: Any, other: Any, *how: Any, **named: Any) -> Any:
        check(pointers, mask)
        dtype = pointers.get_element_ty()
        if other is None and dtype.is_floating():
            numbers = np.full(pointers.data.shape, np.nan, np.float32)
            other = interpreter.TensorHandle(numbers.astype(interpreter._get_np_dtype(dtype)), dtype)
        return load(self, pointers, mask, other, *how, **named)

    def checked_store(self: Any, pointers: Any, value: Any, mask: Any, *how: Any) -> Any:
        check(pointers, mask)
        return store(self, pointers, value, mask, *how)

    monkeypatch.setattr(executor, "_init_args_hst", noted)
    monkeypatch.setattr(builder, "create_masked_load", checked_load)
    monkeypatch.setattr(builder, "create_masked_store", checked_store)


def new_nan(like: Tensor, *arguments: Any, **named: Any) -> Tensor:
    """Return what `like.new_empty` does, of numbers that show where they are never written."""
    made: Tensor = NEW_EMPTY(like, *arguments, **named)
    return made.fill_(float("nan")) if made.is_floating_point() else made


@cache
def interpreted_kernels() -> ModuleType:
    """Return the kernels as functions that the interpreter runs, where others may have them compiled.

    Triton itself is imported as what compiles: parts of it that it imports late refuse what was imported to be interpreted.
    """
    importlib.import_module("triton")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TRITON_INTERPRET", "1")
        return load_kernels("interpreted")


@cache
def compiled_kernels() -> Any:
    """Return the kernels as functions that are compiled, though Triton may be set to interpret them."""
    with pytest.MonkeyPatch.context() as patched:
        patched.delenv("TRITON_INTERPRET", raising=False)
        return load_kernels("compiled")


def load_kernels(name: str) -> ModuleType:
    found = importlib.util.find_spec("sparse_models.kernels.triton._kernels")
    assert found is not None
    assert found.origin is not None
    spec = importlib.util.spec_from_file_location(f"{name}_kernels", found.origin)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Triton reads the source by the module's name
    spec.loader.exec_module(module)
    return module
