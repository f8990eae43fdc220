"""The layers of blocks by their kernels for a GPU: interpreted on CPU tensors, on a card where there is one."""

import pytest
import torch
from torch import Tensor

from sparse_models.kernels.triton import blocks
from sparse_models.layers import block
from sparse_models.layers.block import Block, of_size
from sparse_models.models import MLP
from sparse_models.registry import LAYERS
from sparse_models.testing import Problem, gate
from sparse_models.training import optimizer_for, training_step
from tests.helpers.gpu.interpreted import device
from tests.strategies import mask_for, normal

__all__ = ["device"]
DTYPES = [torch.float32, torch.float16]


@pytest.fixture(autouse=True)
def _kernels_of_a_gpu(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if device == "cpu":
        monkeypatch.setattr(block, "on_a_gpu", lambda _: True)
        monkeypatch.setattr(Block, "dtypes_on", classmethod(lambda *_: ("float32", "float16")))


def drawn(name: str, device: str, dtype: torch.dtype, shape: tuple[int, int, int] = (72, 40, 33)) -> Problem:
    outputs, inputs, batch = shape
    shapes = ((outputs, inputs), (outputs,), (batch, inputs), (batch, outputs))
    weight, bias, x, grad = (normal(seed, *one, dtype=dtype).to(device) for seed, one in enumerate(shapes))
    return Problem(weight, mask_for(name, (outputs, inputs), 0.5).to(device), bias, x, grad)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["block16", "block32", "block64"])
def test_the_layer_passes_the_gate(device: str, name: str, dtype: torch.dtype) -> None:
    gate(LAYERS[name], drawn(name, device, dtype))


def test_a_training_moves_weights_and_leaves_what_is_beyond_the_edges_0(device: str) -> None:
    problem = drawn("block16", device, torch.float32)
    layer = LAYERS["block16"](problem.weight, problem.mask, problem.bias)
    model, labels = MLP([layer]), torch.zeros(33, dtype=torch.int64, device=problem.x.device)
    optimizer = optimizer_for("adam", model.parameters(), 0.1)
    before = layer.to_dense()
    for _ in range(2):
        training_step(model, problem.x, labels, optimizer)
    assert not torch.equal(layer.to_dense(), before)
    assert torch.equal(layer.pack(layer.to_dense()), layer.values.detach())


def test_outputs_are_batch_major_whatever_the_inputs_are(device: str) -> None:
    problem = drawn("block16", device, torch.float32)
    layer = LAYERS["block16"](problem.weight, problem.mask, problem.bias)
    outputs: list[Tensor] = [layer(x).detach() for x in (problem.x, problem.x.t().contiguous().t())]
    assert all(output.is_contiguous() for output in outputs)
    assert torch.equal(*outputs)


def test_blocks_that_tensor_cores_do_not_take_say_so() -> None:
    for name in ("block4", "block8"):
        assert LAYERS[name].devices == ("cpu",)
        assert "blocks there are of 16 x 16" in LAYERS[name].absent["cuda"]
    assert of_size(16, 16).devices == (("cpu",) if blocks.why_absent() else ("cpu", "cuda"))
    assert of_size(16, 32).devices == ("cpu",)
    assert LAYERS["block16"].layout_for("cuda", 8, learning=True) == "batch-major"
    assert LAYERS["block16"].layout_for("cpu", 8, learning=True) == "feature-major"
