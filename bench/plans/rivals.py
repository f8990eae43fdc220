"""A model in, dense in other ways out: in 16 bits, and compiled by torch.compile; each layer by itself, and the whole."""

import importlib
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from bench.machine.facts import has_bfloat16
from bench.models.loading import Example
from bench.plans.arms import Arm, Model
from bench.works.compiled import COMPILED, can_compile, compiled
from bench.works.whole_model_gate import gate_compiled, gate_rounded
from sparse_models.errors import InputError

BFLOAT16 = "bfloat16"


class Rival(NamedTuple):
    """A way to run dense that may be faster: its arms, and what raises where there is none of a model for an operation."""

    told: str  # in a sentence
    in_place: Callable[[Model, str], Arm]  # with each layer watched
    whole: Callable[[Model, str], Arm]
    check: Callable[[Model, str], None]


def _check_bfloat16(model: Model, op: str) -> None:
    if not has_bfloat16():
        raise InputError("expected a CPU that multiplies numbers of 16 bits, got one without such instructions; leave it")
    if all(one.dtype == torch.bfloat16 for one in model.example.module.parameters()):
        raise InputError("expected a model in more bits, got one that is in bfloat16 as it comes; convert it for more rivals")
    for example, arm in ((model.example, _of_16_bits), (model.called, _layers_of_16_bits)):
        gate_rounded(example.placed("cpu", torch.bfloat16), example.copied, learning=op == "step")
        arm(model, op)()


def _of_16_bits(model: Model, op: str) -> Arm:
    return Arm(model.example.placed("cpu", torch.bfloat16), op)


def _layers_of_16_bits(model: Model, op: str) -> Arm:
    return Arm(model.called.placed("cpu", torch.bfloat16), op, model.names)


def _check_compiled(model: Model, op: str) -> None:
    """Compile all once, so that other processes find it on disk, and hold both arms against the model as it is."""
    if not can_compile("cpu"):
        raise InputError("expected torch.compile and a C++ compiler, got none; install g++, or unset TORCH_COMPILE_DISABLE")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's compiler uses what PyTorch says not to use
        for own, arm in ((model.example, _compiled_whole(model, op)), (model.called, _compiled_layers(model, op))):
            gate_compiled(arm, Example(arm.model, arm.batch), own.copied, learning=op == "step")
            arm()
            before = _compilations()
            arm()
            if _compilations() != before:
                raise InputError(
                    "expected code that is compiled once, got a model that is compiled anew at each call, as one that counts "
                    "its calls; keep such numbers out of its forward pass"
                )


def _compilations() -> int:
    """Return how many pieces of code were compiled so far."""
    dynamo: Any = importlib.import_module("torch._dynamo.utils")  # as late as torch.compile imports it
    return int(dynamo.counters["frames"]["total"])


def _compiled_whole(model: Model, op: str) -> Arm:
    return Arm(model.example.copied, op, run_as=compiled)


def _compiled_layers(model: Model, op: str) -> Arm:
    example = model.called
    for name in model.names:
        layer = example.module.get_submodule(name)
        layer.forward = compiled(layer.forward)
    return Arm(example, op, model.names)


RIVALS = {
    BFLOAT16: Rival("in bfloat16", _layers_of_16_bits, _of_16_bits, _check_bfloat16),
    COMPILED: Rival("compiled by torch.compile", _compiled_layers, _compiled_whole, _check_compiled),
}
