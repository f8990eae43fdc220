"""The layer `tiled` by its kernels for a GPU: emulated on CPU tensors everywhere, on a card where there is one."""

import copy
import pickle

import pytest
import torch
from torch import Tensor
from torch._dynamo import config

from sparse_models.kernels import chain
from sparse_models.kernels.cpu.few import frozen as few_on_cpu
from sparse_models.kernels.cuda import _compile, small_batch
from sparse_models.kernels.cuda._compile import Launch, Macros
from sparse_models.kernels.cuda.cross_entropy import LEFT_OUT
from sparse_models.kernels.cuda.frozen import Frozen
from sparse_models.kernels.cuda.small_batch import Form, Packed
from sparse_models.kernels.source import Source
from sparse_models.layers import tiled
from sparse_models.layers.tiled import Tiled
from sparse_models.models import MLP
from sparse_models.testing import Problem, gate, gate_chain
from sparse_models.training import OPTIMIZERS, optimizer_for, training_step
from tests.helpers.gpu.on_a_card import device

__all__ = ["device"]
SIZES = {torch.float32: (40, 64, 33), torch.float16: (13, 203, 5), torch.bfloat16: (7, 5, 1)}  # outputs, inputs, samples
DTYPES = list(SIZES)


@pytest.fixture(autouse=True)
def _kernels_of_a_gpu(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if device == "cpu":
        monkeypatch.setattr(tiled, "on_a_gpu", lambda _: True)
        monkeypatch.setattr(tiled, "NUMBERS", tiled.NUMBERS | {"cpu": (*tiled.NUMBERS["cpu"], *tiled.NUMBERS["cuda"])})
        monkeypatch.setattr(Tiled, "devices", ("cpu", "cuda"))
        monkeypatch.setattr(chain, "gradients", chain.layer_by_layer)
        monkeypatch.setattr(chain, "kernels_for", lambda *_: chain.CUDA)


def drawn(device: str, outputs: int, inputs: int, batch: int, dtype: torch.dtype) -> Problem:
    generator = torch.Generator().manual_seed(outputs)
    shapes = ((outputs, inputs), (outputs,), (batch, inputs), (batch, outputs))
    weight, bias, x, grad = (torch.randn(*shape, generator=generator).to(device, dtype) for shape in shapes)
    mask = (torch.rand(outputs, inputs, generator=generator) < 0.3).to(device)
    return Problem(weight, mask, bias, x, grad)


def exact(layer: Tiled, x: Tensor) -> Tensor:
    assert layer.bias is not None
    return x.double() @ layer.to_dense().double().t() + layer.bias.double()


def held_by(layer: Tiled) -> dict[Form, tuple[Packed, Source]]:
    assert isinstance(layer.frozen, Frozen)
    return layer.frozen.held


def packed_of(layer: Tiled, batch: int) -> Packed:
    return held_by(layer)[small_batch.form_for(layer.in_features, layer.values.dtype, batch)][0]


def close(found: Tensor, expected: Tensor) -> bool:
    error = float((found.detach().double() - expected.detach()).norm() / expected.detach().norm())
    return error < 2 * torch.finfo(found.dtype).eps


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_layer_passes_the_gate(device: str, dtype: torch.dtype) -> None:
    outputs, inputs, batch = SIZES[dtype]  # to compile kernels for the emulator takes a second each
    gate(Tiled, drawn(device, outputs, inputs, batch, dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_frozen_layer_follows_its_weights_and_its_mask(device: str, dtype: torch.dtype) -> None:
    problem = drawn(device, 13, 203, 3, dtype)
    layer = Tiled(problem.weight, problem.mask, problem.bias).eval()
    with torch.no_grad():
        assert not held_by(layer)
        assert close(layer(problem.x), exact(layer, problem.x))
        packed = packed_of(layer, 3)
        layer.values.mul_(-2)
        assert close(layer(problem.x), exact(layer, problem.x))
        assert packed_of(layer, 3) is packed  # the structure is the same: only its values were gathered anew
        layer.values.data = layer.values.data * 3
        assert close(layer(problem.x), exact(layer, problem.x))
        layer.set_mask(problem.mask.flip(0))
        assert close(layer(problem.x), exact(layer, problem.x))
        assert packed_of(layer, 3) is not packed
        layer.to(torch.float16 if dtype == torch.bfloat16 else torch.bfloat16)
        x = problem.x.to(layer.values.dtype)
        assert close(layer(x), exact(layer, x))


@pytest.mark.parametrize(("dtype", "forms"), [(torch.float32, 1), (torch.bfloat16, 2)])
def test_a_layer_holds_one_copy_of_its_weights_for_each_form(device: str, dtype: torch.dtype, forms: int) -> None:
    problem = drawn(device, 13, 203, 16, dtype)
    layer = Tiled(problem.weight, problem.mask, problem.bias).eval()
    batches = (8, 1, 2, 5, 16)
    with torch.no_grad():
        for batch in batches:
            assert close(layer(problem.x[:batch]), exact(layer, problem.x[:batch]))
        assert len(held_by(layer)) == forms
        held = [packed_of(layer, batch) for batch in batches]
        layer.values.mul_(-2)
        for batch, packed in zip(batches, held, strict=True):  # each is filled anew
            assert close(layer(problem.x[:batch]), exact(layer, problem.x[:batch]))
            assert packed_of(layer, batch) is packed
        layer.set_mask(problem.mask.flip(0))
        layer(problem.x)
        assert len(held_by(layer)) == 1  # those of the other mask are given up
        for batch in batches:
            assert close(layer(problem.x[:batch]), exact(layer, problem.x[:batch]))
        assert len(held_by(layer)) == forms
        assert len(held_by(layer.train())) == forms  # out of date, in the memory that a captured graph may read


def test_what_changes_weights_unseen_is_seen_after_train_and_eval(device: str) -> None:
    problem = drawn(device, 13, 203, 3, torch.float32)
    layer = Tiled(problem.weight, problem.mask, problem.bias).eval()
    with torch.no_grad():
        layer(problem.x)
        layer.values.data.mul_(2)  # as a graph's replay: no version is counted
        layer.train().eval()
        assert close(layer(problem.x), exact(layer, problem.x))


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_step_in_eval_mode_is_seen_though_optimizers_of_one_kernel_count_no_change(
    device: str, optimizer: str, fused: bool
) -> None:
    problem = drawn(device, 13, 203, 3, torch.float32)
    model = MLP([Tiled(problem.weight, problem.mask, problem.bias)]).eval()
    [layer] = model
    assert isinstance(layer, Tiled)
    with torch.no_grad():
        layer(problem.x)
        packed = packed_of(layer, 3)
    labels = torch.zeros(3, dtype=torch.int64, device=problem.x.device)
    training_step(model, problem.x, labels, optimizer_for(optimizer, model.parameters(), 0.1), fused=fused)
    with torch.no_grad():
        assert close(layer(problem.x), exact(layer, problem.x))
        assert packed_of(layer, 3) is packed  # in the memory that a captured graph may read


def test_a_layer_of_inference_mode_takes_the_way_that_needs_no_count_of_changes(device: str) -> None:
    problem = drawn(device, 13, 203, 3, torch.float32)
    with torch.inference_mode():
        layer = Tiled(problem.weight, problem.mask, problem.bias).eval()
        assert not layer.is_for_few(problem.x)
        assert close(layer(problem.x), exact(layer, problem.x))
    usual = Tiled(problem.weight, problem.mask, problem.bias).eval()
    for way in (torch.inference_mode, torch.no_grad):
        with way():  # the second refills what the first has packed
            assert usual.train().eval().is_for_few(problem.x) is close(usual(problem.x), exact(usual, problem.x)) is True


def test_a_saved_layer_has_no_second_copy_of_its_weights_and_a_copied_one_has_its_own(device: str) -> None:
    problem = drawn(device, 13, 203, 3, torch.float32)
    layer = Tiled(problem.weight, problem.mask, problem.bias).eval()
    with torch.no_grad():
        expected = layer(problem.x)
        for other, copies in ((copy.deepcopy(layer), 1), (pickle.loads(pickle.dumps(layer)), 0)):  # noqa: S301  # our own
            assert len(held_by(other)) == copies
            held = [packed_of(other, 3)] if copies else []
            assert torch.equal(other(problem.x), expected)
            assert all(packed_of(other, 3) is packed for packed in held)
            other.values.mul_(2)
            assert close(other(problem.x), exact(other, problem.x))
        assert torch.equal(layer(problem.x), expected)


def test_a_copy_of_a_layer_whose_weights_changed_since_is_made_anew(device: str) -> None:
    problem = drawn(device, 13, 203, 3, torch.float32)
    layer = Tiled(problem.weight, problem.mask, problem.bias).eval()
    with torch.no_grad():
        layer(problem.x)
        layer.values.mul_(2)
        other = copy.deepcopy(layer)
        assert close(other(problem.x), exact(layer, problem.x))


def test_a_kernel_begins_early_only_where_the_one_before_did_not_write_its_weights(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = drawn(device, 13, 203, 3, torch.float32)
    layer = Tiled(problem.weight, problem.mask, problem.bias).eval()
    run, early = _compile.run, list[bool]()

    def noted(file: str, macros: Macros, launch: Launch, *arguments: Tensor | float | None) -> None:
        early.append(launch.overlapped)
        run(file, macros, launch, *arguments)

    monkeypatch.setattr(_compile, "run", noted)
    with torch.no_grad():
        layer(problem.x)
        layer(problem.x)
        layer.values.mul_(2)
        layer(problem.x)
    assert early == [False, True, False]


def test_few_samples_are_multiplied_otherwise_only_where_nothing_is_to_be_learned(device: str) -> None:
    problem = drawn(device, 13, 203, 3, torch.float32)
    layer = Tiled(problem.weight, problem.mask, problem.bias)
    many = problem.x.repeat(small_batch.LARGEST_BATCH, 1)
    for x, training, learning, few in (
        (problem.x, False, False, True),
        (problem.x, True, False, False),
        (problem.x, False, True, False),
        (many, False, False, False),
        (many[:0], False, False, False),
    ):
        layer.train(training)
        with torch.set_grad_enabled(learning):
            assert layer.is_for_few(x) == few
            assert close(layer(x), exact(layer, x)) or len(x) == 0


def test_code_that_is_compiled_sees_that_weights_have_changed(device: str) -> None:
    problem = drawn(device, 13, 40, 3, torch.float32)
    layer = Tiled(problem.weight, problem.mask, problem.bias).eval()
    with config.patch(disable=False), torch.no_grad():  # as tests have it
        compiled = torch.compile(layer, backend="aot_eager")
        for _ in range(4):
            assert close(compiled(problem.x), exact(layer, problem.x))
            layer.values.mul_(2)


def test_a_chain_passes_the_gate(device: str) -> None:
    first, second = (drawn(device, outputs, inputs, 33, torch.float32) for outputs, inputs in ((24, 17), (5, 24)))
    layers = [Tiled(part.weight, part.mask, part.bias) for part in (first, second)]
    labels = torch.randint(5, (33,), generator=torch.Generator().manual_seed(0)).to(first.x.device)
    labels[:9] = LEFT_OUT
    assert Tiled.chain_cross_entropy(layers, first.x, labels) is not None
    gate_chain(layers, first.x, labels)
    twice = torch.autograd.grad(2 * MLP(layers).cross_entropy(first.x, labels), layers[0].values)[0]
    once = torch.autograd.grad(MLP(layers).cross_entropy(first.x, labels), layers[0].values)[0]
    assert torch.allclose(twice, 2 * once)


@pytest.mark.parametrize(
    ("on", "batch", "learning", "layout"),
    [("cuda", 8, False, "batch-major"), ("cuda", 8, True, "feature-major"), ("cuda", 17, False, "feature-major"),
     ("cpu", few_on_cpu.largest_batch(), False, "batch-major"),
     ("cpu", few_on_cpu.largest_batch() + 1, False, "feature-major")],
)  # fmt: skip
def test_few_samples_are_taken_as_they_come(on: str, batch: int, learning: bool, layout: str) -> None:
    assert Tiled.layout_for(on, batch, learning=learning) == layout
