"""The fused step of a chain of layers against its plain definition."""

import itertools
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from sparse_models.kernels.chain import define_gradients, gradients, layer_by_layer
from sparse_models.kernels.cpu._pass import tile_by_tile
from sparse_models.kernels.cpu._tile import TILE_BYTES
from sparse_models.kernels.link import Link
from sparse_models.layers.tiled import Tiled
from tests.helpers.kernel_checks import BATCHES, Watcher, close
from tests.strategies import seeds

pytestmark = pytest.mark.usefixtures("poisoned")


def links(seed: int, sizes: tuple[int, ...], density: float, dtype: torch.dtype, *, with_bias: bool) -> list[Link]:
    numbers, found = torch.Generator().manual_seed(seed), []
    for inputs, outputs in itertools.pairwise(sizes):
        weight, bias = (torch.randn(size, generator=numbers, dtype=dtype) for size in ((outputs, inputs), (outputs,)))
        mask = torch.rand(outputs, inputs, generator=numbers) < density
        found.append(Tiled(weight, mask, bias if with_bias else None).link())
    return found


def any_is_near_the_kink(linked: list[Link], x: Tensor) -> bool:
    """Tell whether rounding may decide what ReLU lets pass: of a number so near to 0 another order of sums changes the sign."""
    held = x.double()
    for link in linked[:-1]:
        held = held @ link.rows.dense(link.values).double().t() + (0 if link.bias is None else link.bias.double())
        if bool(((held.abs() < 1e-5) & (held != 0)).any()):
            return True
        held = held.relu()
    return False


@given(
    seeds,
    st.lists(st.integers(1, 30), min_size=2, max_size=5).map(tuple),
    st.sampled_from(BATCHES),
    st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    st.sampled_from([torch.float32, torch.float64]),
    st.booleans(),
    st.booleans(),
)
def test_a_chain_has_the_loss_and_gradients_of_its_definition(
    seed: int, sizes: tuple[int, ...], batch: int, density: float, dtype: torch.dtype, with_bias: bool, feature_major: bool
) -> None:
    numbers = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, sizes[0], generator=numbers, dtype=dtype)
    x = x.t().contiguous().t() if feature_major else x
    labels = torch.randint(sizes[-1], (batch,), generator=numbers)
    linked = links(seed, sizes, density, dtype, with_bias=with_bias)
    assume(not any_is_near_the_kink(linked, x))
    defined = define_gradients(linked, x, labels)
    for found in (tile_by_tile(linked, x.contiguous(), labels), layer_by_layer(linked, x, labels)):
        close(found.loss, defined.loss)
        for mine, its in zip([*found.values, *found.biases], [*defined.values, *defined.biases], strict=True):
            close(mine, its)


def test_logits_of_any_size_have_a_finite_loss() -> None:
    [link] = links(0, (4, 3), 1.0, torch.float32, with_bias=True)
    x, labels = 1e4 * torch.randn(20, 4, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3
    found, defined = gradients([link], x, labels), define_gradients([link], x, labels)
    torch.testing.assert_close(found.loss, defined.loss)
    torch.testing.assert_close(found.values[0], defined.values[0])


@pytest.mark.parametrize("way", [tile_by_tile, layer_by_layer])
def test_what_is_not_a_number_is_not_hidden_by_relu(way: Any) -> None:
    linked = links(0, (4, 6, 3), 1.0, torch.float32, with_bias=True)
    x, labels = torch.randn(20, 4), torch.arange(20) % 3
    x[7] = torch.nan
    found = way(linked, x, labels)
    assert found.loss.isnan()
    assert all(gradient.isnan().all() for gradient in (found.values[-1], found.biases[-1]))


def test_inputs_and_labels_may_have_any_strides() -> None:
    linked = links(0, (4, 6, 3), 0.5, torch.float32, with_bias=True)
    x, labels = torch.randn(4, 40), torch.randint(3, (80,))
    found, defined = gradients(linked, x.t(), labels[::2]), define_gradients(linked, x.t(), labels[::2])
    close(found.loss, defined.loss)
    close(found.values[0], defined.values[0])


def test_a_chain_goes_layer_by_layer_where_its_tile_fits_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    went: list[str] = []
    for way in ("tile_by_tile", "layer_by_layer"):
        monkeypatch.setattr(f"sparse_models.kernels.chain.{way}", lambda *_, way=way: went.append(way))
    for features in (4, TILE_BYTES // 16):
        gradients(links(0, (features, 2), 0.0, torch.float32, with_bias=False), torch.rand(2, features), torch.tensor([0, 1]))
    assert went == ["tile_by_tile", "layer_by_layer"]


@pytest.mark.parametrize("batch", [1, 70, 300, 1100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_chain_touches_what_is_its_own(watcher: Watcher, batch: int, dtype: torch.dtype) -> None:
    numbers = torch.Generator().manual_seed(0)
    x, labels = torch.randn(batch, 4, generator=numbers, dtype=dtype), torch.randint(3, (batch,), generator=numbers)
    for way in (tile_by_tile, layer_by_layer):
        way(links(0, (4, 5, 3), 0.5, dtype, with_bias=True), x, labels)
    assert watcher.written
    assert not watcher.outside
    assert not watcher.contested


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_chain_always_gives_the_same_on_a_number_of_threads(threads: int) -> None:
    torch.set_num_threads(threads)
    linked = links(0, (20, 30, 10), 0.3, torch.float32, with_bias=True)
    x, labels = torch.rand(1500, 20), torch.arange(1500) % 10
    first = gradients(linked, x, labels)
    for _ in range(10):
        again = gradients(linked, x, labels)
        assert torch.equal(first.loss, again.loss)
        assert all(torch.equal(*pair) for pair in zip(first.values, again.values, strict=True))
