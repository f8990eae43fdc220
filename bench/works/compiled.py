"""Dense's whole training step, compiled by torch.compile: one of the variants of the reference."""

import contextlib
import ctypes
import importlib
import importlib.util
import os
import shutil
import warnings
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor

from bench.cases import Case
from bench.works.gates import pass_once
from bench.works.operations import optimizer_of
from bench.works.problems import build, labels_of, problems
from sparse_models.models import MLP
from sparse_models.testing import away_from_corners, gate_loss
from sparse_models.training import training_step

COMPILED = "compiled"  # the variant's name; on batch-major samples


def can_compile(device: str) -> bool:
    """Tell whether torch.compile is wanted (TORCH_COMPILE_DISABLE) and finds a C++ compiler and, for a GPU, Triton here."""
    found = any(map(shutil.which, [os.environ.get("CXX", "g++"), "clang++"]))
    able = found and (device == "cpu" or importlib.util.find_spec("triton") is not None)
    return os.environ.get("TORCH_COMPILE_DISABLE") != "1" and able


@cache
def load_compiler() -> None:
    """Have PyTorch compile next to nothing, once, for all processes forked later.

    To load code that lies compiled on disk takes each of them two seconds otherwise: the compiler is imported, starts programs
    that try each kind of vector instruction, and reads all of its own sources for the name under which it looks. What is run
    here starts no thread, which a fork would lose.
    """
    with contextlib.suppress(Exception), warnings.catch_warnings():  # a process that fails to compile tells
        warnings.simplefilter("ignore")
        torch.compile(lambda x: torch.relu(x).sum())(torch.ones(1))
        importlib.import_module("torch._dynamo").reset()


@cache
def import_compiler() -> None:
    """Import what compiles for a GPU, and find out by what names it keeps code, for all processes forked later.

    That is half of what it takes each of them to load code that lies compiled on disk. Nothing is compiled: it would begin with
    asking the driver for the GPU, which no process can use that is forked after that.
    """
    with contextlib.suppress(Exception), warnings.catch_warnings():  # a process that fails to compile tells
        warnings.simplefilter("ignore")
        importlib.import_module("torch._inductor.compile_fx")
        importlib.import_module("torch._inductor.codecache").torch_key()
        importlib.import_module("torch._inductor.runtime.triton_compat").triton_key()


def is_gpu_in_use() -> bool:
    """Tell whether this process has initialised the driver of a GPU: none that is forked from it can use one then."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return int(driver.cuDeviceGetCount(ctypes.byref(ctypes.c_int()))) == 0  # an error, if it has not


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function, or a module, that is compiled for the shapes of its inputs as it is first called."""
    # Past its limit of shapes for one piece of code, eight as it comes, dynamo would run it eagerly and say nothing.
    dynamo: Any = importlib.import_module("torch._dynamo.config")  # here, because it takes as long as all of torch
    dynamo.recompile_limit, dynamo.fail_on_recompile_limit_hit = 256, True
    return torch.compile(function, dynamic=False)


@lru_cache(maxsize=2)  # compiled code is loaded in a second or two, and cases of one shape follow one another
def compiled_step(shape: str, device: str, dtype: str, threads: int) -> tuple[Callable[[], object], MLP]:
    """Return a dense step of the one training loop whose loss is compiled, and its layers; raises GateError where it is wrong.

    What is compiled is compiled here, or loaded, and not where it is first timed.
    """
    parts = problems(Case("training_step", "dense", "dense", "static", shape, 0.0, device, dtype, threads), "dense")
    model = build("dense", parts)
    x, labels, optimizer = parts[0].x, labels_of(parts), optimizer_of(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's compiler uses what PyTorch says not to use
        loss_of = compiled(model.cross_entropy)
        pass_once(f"{COMPILED} {shape} {device} {dtype} {threads}", lambda: _check(model, loss_of, x, labels))
        torch.autograd.grad(loss_of(x, labels), list(model.parameters()))

    def step() -> Tensor:
        return training_step(model, x, labels, optimizer, loss_of=loss_of)

    return step, model


def _check(model: MLP, loss_of: Callable[..., Tensor], x: Tensor, labels: Tensor) -> None:
    """Raise GateError unless a compiled loss of x [batch, in] and labels [batch] and its gradients are the definition's."""
    looked_at = away_from_corners(list(model), x)
    gate_loss(list(model), loss_of(looked_at, labels), looked_at, labels)
