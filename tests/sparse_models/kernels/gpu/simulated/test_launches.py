"""How many kernels a GPU is given by what a model does, counted on a CPU: each costs microseconds, more than most run for."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sparse_models import linear
from sparse_models.kernels.cuda import _compile
from sparse_models.kernels.cuda._compile import Launch, Macros
from sparse_models.kernels.cuda.moves import moving
from sparse_models.layers.tiled import Tiled
from sparse_models.models import MLP, convert, draw
from sparse_models.training import optimizer_for, training_step
from sparse_models.updates import UPDATES, update_masks
from tests.helpers.gpu.on_a_card import device
from tests.helpers.gpu.simulated_gpu import no_host_sync, pretend_gpu
from tests.sparse_models.kernels.gpu.test_cuda_layer import _kernels_of_a_gpu
from tests.strategies import generator, mlp_of, normal

__all__ = ["_kernels_of_a_gpu", "device"]  # fixtures
SIZES, BATCH = (20, 24, 16, 10), 40  # as many layers as the seed's MLP
LAYERS = len(SIZES) - 1
Count = Callable[[Callable[[], object]], Counter[str]]


@pytest.fixture
def count(device: str, monkeypatch: pytest.MonkeyPatch) -> Count:
    """Return what counts the kernels that a call launches, our own by their file, PyTorch's by their operation.

    The host asks for nothing meanwhile, as while a CUDA graph is captured.
    """
    if device == "cuda":
        pytest.skip("counted in simulation")
    run, own = _compile.run, Counter[str]()

    def counted(file: str, macros: Macros, launch: Launch, *arguments: Tensor | float | None) -> None:
        own[file] += 1
        run(file, macros, launch, *arguments)

    def found(call: Callable[[], object]) -> Counter[str]:
        own.clear()
        with pytest.MonkeyPatch.context() as patch:
            pretend_gpu(patch, captured=True)
            patch.setattr(linear, "count_of_modes", lambda: 0)  # what counts is a mode, and with any a step is not fused
            with no_host_sync() as seen:
                call()
        launched: Counter[str] = own + seen.launches
        return launched

    monkeypatch.setattr(_compile, "run", counted)
    monkeypatch.setattr(moving, "on_a_gpu", lambda _: True)
    return found


def trained() -> tuple[MLP, torch.optim.Optimizer, Tensor, Tensor]:
    """A model that has taken a step, with its optimizer, samples and labels."""
    model = mlp_of("tiled", convert(draw(SIZES, generator(0))), 0.5)
    state = optimizer_for("adam", model.parameters(), 0.1)
    x, labels = normal(1, BATCH, SIZES[0], dtype=torch.float32), torch.randint(SIZES[-1], (BATCH,), generator=generator(2))
    training_step(model, x, labels, state, fused=False)
    return model, state, x, labels


def calls(rule: str = "rigl") -> dict[str, Callable[[], object]]:
    """What is counted, by its name; each was called before, as whatever is captured is."""
    model, state, x, labels = trained()
    layer, slope, wanting = next(iter(model)), torch.ones(BATCH, SIZES[1]), x.clone().requires_grad_()
    grads = {part: normal(3, part.out_features, part.in_features, dtype=torch.float32) for part in model}
    found: dict[str, Callable[[], object]] = {
        "forward": lambda: layer(x),
        "forward and backward": lambda: torch.autograd.grad(layer(wanting), [wanting, *layer.parameters()], slope),
        "training step": lambda: training_step(model, x, labels, state),
        "training step, layer by layer": lambda: training_step(model, x, labels, state, fused=False),
        "mask update": lambda: update_masks(model, UPDATES[rule], 0.3, optimizer=state, gradients=grads),
    }  # fmt: skip
    for call in found.values():
        call()
    return found


# Those of today: a change that launches fewer lowers them.
MOST = {
    "forward": 2,
    "forward and backward": 7,  # a card launches one less: a CPU gives the input gradient the strides of the input
    "training step": 17,
    "training step, layer by layer": 23,
    "mask update": 2 * LAYERS + 1,  # what is kept from phase to phase begins with zeros
}


@pytest.mark.parametrize("name", MOST)
def test_as_few_kernels_are_launched_as_ever(name: str, count: Count) -> None:
    found = count(calls()[name])
    assert found.total() <= MOST[name], found


def test_growing_at_random_takes_one_kernel_more(count: Count) -> None:
    found = count(calls("set")["mask update"])
    assert found.total() <= MOST["mask update"] + 1, found


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 10), (torch.bfloat16, 8)])
def test_a_large_layer_takes_a_kernel_for_each_phase(
    dtype: torch.dtype, most: int, count: Count, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving, "SMALL", 0)
    monkeypatch.setattr(moving, "CHUNK", 4)
    weight = normal(0, 24, 20, dtype=dtype)
    layer = Tiled(weight, weight > 0)
    layer.values.grad = torch.ones_like(layer.values)
    grad = normal(1, 24, 20, dtype=dtype)
    found = count(lambda: update_masks([layer], UPDATES["rigl"], 0.3, gradients={layer: grad}))
    assert found.total() <= most + 2, found


def test_few_samples_take_one_kernel(count: Count) -> None:
    model, _, x, _ = trained()
    layer = next(iter(model)).eval()
    with torch.no_grad():
        layer(x[:3])
        assert count(lambda: layer(x[:3])) == {"small_batch.cu": 1}
