"""Each operation computes what its name says, and no more, however often it is called."""

from typing import Any

import pytest
import torch

from bench.cases import Case
from bench.works.operations import operation
from bench.works.problems import build, problems
from sparse_models.models import MLP

SHAPES = {"7x5b3": 1, "7x6x5b3": 2}  # and how many layers


def made(shape: str) -> tuple[MLP, list[Any]]:
    parts = problems(Case("step", "sparse", "csr", "static", shape, 0.5, "cpu", "float64", 1), "csr")
    return build("csr", parts), parts


@pytest.mark.parametrize("shape", SHAPES)
def test_inference_builds_no_graph(shape: str) -> None:
    model, parts = made(shape)
    found: Any = operation("forward", model, parts, "batch-major")()
    assert not found.requires_grad


@pytest.mark.parametrize("shape", SHAPES)
def test_a_single_layer_alone_computes_its_input_gradient(shape: str) -> None:
    model, parts = made(shape)
    grads: Any = operation("backward", model, parts, "batch-major")()
    assert len(grads) == len(list(model.parameters())) + (SHAPES[shape] == 1)
    if SHAPES[shape] == 1:
        assert grads[0].shape == parts[0].x.shape


@pytest.mark.parametrize("shape", SHAPES)
def test_a_step_adds_up_no_gradients_and_hardly_moves_a_weight(shape: str) -> None:
    model, parts = made(shape)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    step = operation("step", model, parts, "batch-major")
    step()
    grads = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    for old, parameter in zip(before, model.parameters(), strict=True):
        torch.testing.assert_close(parameter.detach(), old, rtol=0, atol=1.1e-6)
    for _ in range(3):
        step()
    for old, parameter in zip(grads, model.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, old, rtol=1e-3, atol=1e-4)
