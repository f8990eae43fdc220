"""The layers `two_four` as on a GPU, with a simulated cuSPARSELt; on a card the gate of all layers looks at them."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse_models.errors import InputError
from sparse_models.kernels import two_four as kernels
from sparse_models.kernels.kept_code import cache_folder
from sparse_models.layers import two_four
from sparse_models.layers.two_four import TwoFour, TwoFourTransposable
from sparse_models.registry import LAYERS
from sparse_models.testing import Problem, gate
from sparse_models.training import optimizer_for
from tests.helpers.gpu.simulated_cusparselt import FOUND, USUAL, Simulated, cusparselt
from tests.strategies import mask_for, normal, problems

__all__ = ["cusparselt"]
NAMES = ["two_four", "two_four_transposable"]
DTYPES = [torch.float16, torch.bfloat16]


@pytest.fixture(autouse=True)
def _on_a_gpu(cusparselt: Simulated, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_four, "on_a_gpu", lambda _: True)


def drawn(name: str, dtype: torch.dtype = torch.float16, shape: tuple[int, int, int] = (20, 36, 5)) -> Problem:
    outputs, inputs, batch = shape
    shapes = ((outputs, inputs), (outputs,), (batch, inputs), (batch, outputs))
    weight, bias, x, grad = (normal(seed, *one, dtype=dtype) for seed, one in enumerate(shapes))
    return Problem(weight, mask_for(name, (outputs, inputs), 0.5), bias, x, grad)


def built(name: str, dtype: torch.dtype = torch.float16) -> tuple[TwoFour, Tensor]:
    problem = drawn(name, dtype)
    layer = LAYERS[name](problem.weight, problem.mask, problem.bias)
    assert isinstance(layer, TwoFour)
    return layer, problem.x


def is_right(layer: TwoFour, x: Tensor) -> bool:
    assert layer.bias is not None
    found, exact = layer(x).double(), x.double() @ layer.to_dense().double().t() + layer.bias.double()
    return bool((found - exact).norm() < 2 * torch.finfo(x.dtype).eps * exact.norm())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15)
@given(st.data())
def test_the_layer_passes_the_gate_at_sizes_that_are_padded(name: str, dtype: torch.dtype, data: st.DataObject) -> None:
    gate(LAYERS[name], data.draw(problems(name, dtype)))


@pytest.mark.parametrize("name", NAMES)
def test_the_layer_passes_the_gate_at_sizes_that_are_not(name: str, cusparselt: Simulated) -> None:
    gate(LAYERS[name], drawn(name, shape=(32, 64, 24)))
    assert ("compress",) in cusparselt.calls


@pytest.mark.parametrize(("name", "sparse"), [("two_four", 1), ("two_four_transposable", 2)])
def test_the_input_gradient_is_a_sparse_product_where_the_transpose_is_2_to_4(
    name: str, sparse: int, cusparselt: Simulated
) -> None:
    layer, x = built(name)
    layer(x.requires_grad_()).sum().backward()
    assert cusparselt.calls.count(("compress",)) == sparse
    assert sum(call[0] == "multiply" for call in cusparselt.calls) == sparse


def test_weights_are_compressed_once_for_inference_and_anew_when_they_change(cusparselt: Simulated) -> None:
    layer, x = built("two_four")
    layer.eval()
    with torch.no_grad():
        assert is_right(layer, x)
        assert is_right(layer, x[:2])
        assert cusparselt.calls.count(("compress",)) == 1
        held = layer._weights()
        layer.values.mul_(-2)
        assert is_right(layer, x)
        assert layer._weights() is held  # in the memory that a captured graph may read
        layer.values.data = layer.values.data * 3
        assert is_right(layer, x)
        layer.set_mask(mask_for("two_four", (20, 36), 0.5, 1))
        assert is_right(layer, x)
        layer.bfloat16()
        assert is_right(layer, x.bfloat16())
        before = cusparselt.calls.count(("compress",))
        layer.values.data.mul_(2)  # as a graph's replay: no version is counted
        layer.train().eval()
        assert is_right(layer, x.bfloat16())
        assert cusparselt.calls.count(("compress",)) == before + 1


def test_a_step_in_eval_mode_is_seen_though_optimizers_of_one_kernel_count_no_change() -> None:
    layer, x = built("two_four")
    layer.eval()
    with torch.no_grad():
        layer(x)
    optimizer = optimizer_for("adam", layer.parameters(), 0.1)
    layer(x).sum().backward()
    optimizer.step()
    with torch.no_grad():
        assert is_right(layer, x)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_weights_outside_the_mask_stay_0_under_optimizers(name: str, dtype: torch.dtype, optimizer: str) -> None:
    layer, x = built(name, dtype)
    chosen = optimizer_for(optimizer, layer.parameters(), 0.1)
    for _ in range(3):
        chosen.zero_grad()
        layer(x).square().sum().backward()
        chosen.step()
    assert not layer.values.detach()[~layer.mask].any()


def test_in_a_training_that_a_graph_replays_outputs_without_gradients_follow_the_weights() -> None:
    layer, x = built("two_four")
    with torch.no_grad():
        layer(x)
        layer.values.data.mul_(2)  # as a graph's replay: no version is counted
        assert is_right(layer, x)


def test_in_inference_mode_nothing_is_kept(cusparselt: Simulated) -> None:
    problem = drawn("two_four")
    with torch.inference_mode():
        layer = TwoFour(problem.weight, problem.mask, problem.bias).eval()
        assert is_right(layer, problem.x)
        layer.values.mul_(2)
        assert is_right(layer, problem.x)


def test_copies_and_saved_layers_compress_for_themselves() -> None:
    layer, x = built("two_four")
    layer.eval()
    with torch.no_grad():
        layer(x)
        for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):  # noqa: S301  # our own
            assert other._compressed is None  # no second copy of the weights is saved
            other.values.mul_(2)
            assert is_right(other, x)
        assert is_right(layer, x)


def test_the_fastest_algorithm_is_looked_for_once_for_each_size(cusparselt: Simulated, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = built("two_four")
    layer.eval()
    with torch.no_grad():
        monkeypatch.setattr(kernels, "is_captured", lambda _: True)
        layer(x)  # while a graph is captured none is looked for
        monkeypatch.setattr(kernels, "is_captured", lambda _: False)
        for samples in (5, 3, 20, 5):  # the first two are padded to 8
            layer(x.repeat(4, 1)[:samples])
    assert cusparselt.calls.count(("search",)) == 2
    assert [call[1] for call in cusparselt.calls if call[0] == "multiply"] == [USUAL, *[FOUND] * 4]


def multiplied(layer: TwoFour, x: Tensor) -> None:
    """The first product of a process, which knows no algorithm."""
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(kernels, "_FASTEST", {})
        layer.eval()(x)


def test_the_fastest_algorithm_is_kept_for_later_processes_on_such_a_card(
    cusparselt: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, x = built("two_four")
    multiplied(layer, x)
    monkeypatch.setattr(kernels, "is_captured", lambda _: True)
    multiplied(layer, x)
    assert [call[0] for call in cusparselt.calls].count("search") == 1
    assert [call[1] for call in cusparselt.calls if call[0] == "multiply"] == [FOUND, FOUND]
    monkeypatch.setattr(kernels, "is_captured", lambda _: False)
    [file] = cache_folder().glob("cusparselt-*.json")
    for damaged in (b"", b"[1]", b'{"a": [1, 2, 3, 4]}', file.read_bytes()[:-3]):
        file.write_bytes(damaged)
        multiplied(layer, x)
    monkeypatch.setattr(kernels, "_card", lambda _: "another")
    multiplied(layer, x)
    assert [call[0] for call in cusparselt.calls].count("search") == 6


def test_what_lies_where_the_library_does_not_read_is_copied() -> None:
    problem = drawn("two_four", shape=(32, 64, 8))

    def shifted(tensor: Tensor) -> Tensor:
        room = tensor.new_empty(tensor.numel() + 1)[1:].view(tensor.shape)
        return room.copy_(tensor)

    layer = TwoFour(problem.weight, problem.mask, problem.bias)
    assert layer.bias is not None
    layer.values.data, layer.bias.data = shifted(layer.values.data), shifted(layer.bias.data)
    assert is_right(layer, shifted(problem.x))


def test_without_samples_there_is_no_output_and_no_gradient() -> None:
    layer, x = built("two_four_transposable")
    found = layer(x[:0].requires_grad_())
    assert found.shape == (0, 20)
    found.sum().backward()
    assert layer.values.grad is not None
    assert not layer.values.grad.any()


def test_an_input_of_another_dtype_is_refused() -> None:
    layer, x = built("two_four")
    with pytest.raises(InputError, match=r"TwoFour: expected an input of torch.float16 .* got torch.float32"):
        layer(x.float())


def test_what_is_executed_and_read_is_told() -> None:
    layer, x = built("two_four")
    dense, half = 20 * 36, 20 * 36 // 2
    assert layer.multiply_adds == (half, dense, dense)
    assert built("two_four_transposable")[0].multiply_adds == (half, half, dense)
    with torch.no_grad():
        layer.eval()(x)
    assert layer.weight_bytes == 32 * 48 * 9 // 16 * 2 + 20 * 2  # padded: half the numbers of 2 bytes, 2 bits each, the bias


@pytest.mark.parametrize("name", NAMES)
def test_the_default_grid_has_it_on_a_gpu_alone(name: str) -> None:
    assert not LAYERS[name].is_default_on("cpu")
    assert LAYERS[name].is_default_on("cuda") == (name == "two_four")


def test_a_gpu_has_it_in_16_bit_and_batch_major(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TwoFour, "devices", ("cpu", "cuda"))
    assert TwoFourTransposable.dtypes_on("cuda") == ("float16", "bfloat16")
    assert "float64" in TwoFour.dtypes_on("cpu")
    assert TwoFour.layout_for("cuda", 8, learning=False) == "batch-major"


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for found, reason in ((True, None), (False, "install one for CUDA")):
        monkeypatch.setattr(torch.backends.cusparselt, "is_available", lambda found=found: found)
        kernels.why_absent.cache_clear()
        assert reason is None if kernels.why_absent() is None else str(reason) in str(kernels.why_absent())
    kernels.why_absent.cache_clear()
